"""Find image files and their sidecars, and tell which files are gone from where they were found before."""

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from indexer.errors import InvalidRequest
from indexer.files import path_of_uri
from indexer.images import SUFFIXES
from indexer.metadata import SIDECAR_SUFFIX, sidecar_of

log = logging.getLogger(__name__)


@dataclass
class Found:
    """What lies at some paths: image files, each once, sorted within their folders, and what was passed over."""

    files: dict[Path, None] = field(default_factory=dict)
    with_sidecar: set[Path] = field(default_factory=set)  # those of `files` that a sidecar lies beside
    ignored: int = 0  # other files of the folders
    places: list[str] = field(default_factory=list)  # the URIs that were searched; those of folders end in "/"
    unlisted: list[str] = field(default_factory=list)  # folders that could not be listed, the same way


def find(paths: Sequence[Path], skip: Path | None = None) -> Found:
    """Return the image files at `paths`.

    A file that is named is taken whatever it is called; in folders the suffix decides. Links to folders are not
    followed, and the folder `skip` is left out. InvalidRequest for a path that does not exist.
    """
    found = Found()
    left_out = None if skip is None else absolute(skip)
    for given in paths:
        path = absolute(given)
        if path.is_dir():
            found.places.append(_folder_uri(path))
            _search(path, left_out, found)
        elif path.exists():
            found.places.append(path.as_uri())
            found.files[path] = None
            if os.path.lexists(sidecar_of(path)):
                found.with_sidecar.add(path)
        else:
            raise InvalidRequest(f"{given} does not exist: give a folder or an image file", field="paths")
    return found


def scan(paths: Sequence[Path], skip: Path | None = None) -> tuple[list[Path], int]:
    """Return the image files that `find` finds, and how many other files the folders held."""
    found = find(paths, skip)
    return list(found.files), found.ignored


def _search(root: Path, left_out: Path | None, found: Found) -> None:
    """Add the image files of a folder and of all folders in it."""

    def on_error(error: OSError) -> None:
        folder = Path(os.fsdecode(error.filename or root))
        log.warning("folder not listed path=%s error=%s", folder, error.strerror)
        found.unlisted.append(_folder_uri(folder))

    for name, folders, names in os.walk(root, onerror=on_error):
        folder = Path(name)
        folders[:] = sorted(name for name in folders if folder / name != left_out)
        images = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
        sidecars = {name + SIDECAR_SUFFIX for name in images}.intersection(names)
        found.with_sidecar.update(folder / name.removesuffix(SIDECAR_SUFFIX) for name in sidecars)
        found.ignored += len(names) - len(images) - len(sidecars)
        found.files |= dict.fromkeys(folder / name for name in images)


def gone(uris: Iterable[str], unlisted: Collection[str]) -> list[str]:
    """Return the URIs whose file is not there any more.

    What merely is out of sight is not gone: a file below a folder that could not be listed, or that the file system
    says anything else of than that there is none.
    """
    return [uri for uri in uris if not uri.startswith(tuple(unlisted)) and _is_gone(path_of_uri(uri))]


def _is_gone(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def absolute(path: Path) -> Path:
    """Return the path from the root on, links as they are."""
    return Path(os.path.abspath(path))


def _folder_uri(folder: Path) -> str:
    return folder.as_uri().rstrip("/") + "/"
