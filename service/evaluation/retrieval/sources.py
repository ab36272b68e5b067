"""Find the pictures and read the files of a data set; errors name the file."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.indexer.images.decode import SUFFIXES
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.storage.bounded import read_bounded


def find_pictures(folders: Sequence[Path]) -> dict[Path, str]:
    """Return all pictures below the folders, in order: absolute path → path within its folder, with forward slashes.

    A file that is below two folders belongs to the first. Raises BenchmarkUnreadable if a folder does not exist or if
    there is no picture.
    """
    found: dict[Path, str] = {}
    for folder in folders:
        checked_folder(folder, "give the folder of the pictures")
        for below, subfolders, names in os.walk(folder):
            subfolders.sort()
            # Not resolved: in a data set of symbolic links, the links have the right names.
            paths = [Path(below, name) for name in sorted(names) if not name.startswith(".")]
            for path in paths:
                if path.suffix.lower() in SUFFIXES:
                    found.setdefault(Path(os.path.abspath(path)), path.relative_to(folder).as_posix())
    if not found:
        raise BenchmarkUnreadable(f"no picture below {', '.join(map(str, folders))}: give the folder of the pictures")
    return found


def named_pictures(
    pictures: Mapping[Path, str], is_official: Callable[[str], bool]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the official pictures by stem, and all others by path: distractors may have any name.

    Raises BenchmarkUnreadable if two files have the same official name.
    """
    official: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for path in pictures:
        if not is_official(path.stem):
            others[str(path)] = path
        elif official.setdefault(path.stem, path) != path:
            raise BenchmarkUnreadable(
                f"{path} and {official[path.stem]} have the same name: remove one, or give only one of the folders"
            )
    return official, others


def checked_folder(path: Path, remedy: str) -> Path:
    """Return the folder. Raises BenchmarkUnreadable if it is not a folder."""
    if not path.is_dir():
        raise BenchmarkUnreadable(f"{path} is not a folder: {remedy}")
    return path


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file. Raises BenchmarkUnreadable if it cannot be read."""
    try:
        return read_bounded(path, ImageLimits().max_bytes)
    except OSError as error:
        raise BenchmarkUnreadable(
            f"{path} cannot be read ({error.strerror}): the ground truth is incomplete, fetch it again"
        ) from error


def read_text(path: Path) -> str:
    """Return the text of a file without a byte order mark. Raises BenchmarkUnreadable if it is not UTF-8."""
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchmarkUnreadable(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
