"""The files of a data set on disk: pictures found, text read, and an error that says which one is wrong."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.indexer.images.decode import SUFFIXES


def find_pictures(folders: Sequence[Path]) -> dict[Path, str]:
    """Return all pictures below the folders, in order: absolute path → path within its folder, with forward slashes.

    A file that two folders lead to belongs to the first. Raises BenchmarkUnreadable where a folder does not exist or
    there is no picture at all.
    """
    found: dict[Path, str] = {}
    for folder in folders:
        checked_folder(folder, "give the folder that holds the pictures")
        for below, subfolders, names in os.walk(folder):
            subfolders.sort()
            # Not resolved: a data set of symbolic links has its names in the links.
            paths = [Path(below, name) for name in sorted(names) if not name.startswith(".")]
            for path in paths:
                if path.suffix.lower() in SUFFIXES:
                    found.setdefault(Path(os.path.abspath(path)), path.relative_to(folder).as_posix())
    if not found:
        raise BenchmarkUnreadable(f"no picture below {', '.join(map(str, folders))}: give the folder that holds them")
    return found


def named_pictures(
    pictures: Mapping[Path, str], is_official: Callable[[str], bool]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the official pictures, by stem, and all others, by path: distractors may be called anything.

    Raises BenchmarkUnreadable where two files have one official name.
    """
    official: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for path in pictures:
        if not is_official(path.stem):
            others[str(path)] = path
        elif official.setdefault(path.stem, path) != path:
            raise BenchmarkUnreadable(
                f"{path} and {official[path.stem]} have the same name: remove one, or give one of the folders only"
            )
    return official, others


def checked_folder(path: Path, remedy: str) -> Path:
    """Return the folder, or raise BenchmarkUnreadable where it is none."""
    if not path.is_dir():
        raise BenchmarkUnreadable(f"{path} is not a folder: {remedy}")
    return path


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, or raise BenchmarkUnreadable."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BenchmarkUnreadable(
            f"{path} cannot be read ({error.strerror}): the ground truth is incomplete, fetch it anew"
        ) from error


def read_text(path: Path) -> str:
    """Return the text of a file, a byte order mark removed, or raise BenchmarkUnreadable."""
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchmarkUnreadable(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
