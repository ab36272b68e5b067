"""Decide which recorded sources no longer exist, and which of them `--prune` may forget.

A disk that is not mounted looks like deleted files. `--prune` takes a place that does not exist if the place is named
in the call, its parent folder exists and the collection has images of it. A place is in doubt if

- it does not exist and its parent folder is empty, or
- it does not exist or is empty, and is a mount point: listed in /etc/fstab, or in /media/USER, /run/media/USER, /mnt or
  /Volumes.

A place in doubt is forgotten only if no image is lost by that: each has another source that exists. A mount point below
a scanned folder that is not mounted is in doubt, too.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.sources.scan import Found, absolute, gone
from whatwhere.indexer.sources.uris import is_remote
from whatwhere.indexer.storage.files import path_of_uri

# Folders whose subfolders are mount points; of the first two, those of each user.
_MOUNTS_OF_USERS = (Path("/media"), Path("/run/media"))
_MOUNTS = (*_MOUNTS_OF_USERS, Path("/mnt"), Path("/Volumes"))
FSTAB = Path("/etc/fstab")

log = logging.getLogger(__name__)


def without_gone(paths: Sequence[Path | str]) -> tuple[list[Path | str], list[str]]:
    """Split paths into those that exist or are remote, and the URIs of those that do not exist.

    Each of the latter is given as a file and as a folder, which ends with "/". Raises InvalidRequest if its parent
    folder does not exist either.
    """
    there: list[Path | str] = []
    missing: list[str] = []
    for given in paths:
        text = os.fspath(given)
        if is_remote(text):
            there.append(given)
            continue
        path = absolute(path_of_uri(text) if text.startswith("file://") else Path(text))
        if os.path.lexists(path):
            there.append(given)
        elif path.parent.is_dir():
            missing += [path.as_uri(), f"{path.as_uri()}/"]
        else:
            raise InvalidRequest(
                f"{text} does not exist, and its parent folder neither: is its disk mounted? To forget the images of "
                "a place that is gone, use --prune with the topmost folder that is gone",
                field="paths",
            )
    return there, missing


def require_recorded(catalog: Catalog, missing: Sequence[str]) -> None:
    """Raise InvalidRequest if the collection has no source at or below a place that does not exist."""
    for file, folder in zip(missing[::2], missing[1::2], strict=True):
        if not catalog.vanished([file, folder], ()):
            raise InvalidRequest(
                f"{path_of_uri(file)} does not exist, and the collection has no image of it: check the path",
                field="paths",
            )


def without_doubtful(
    catalog: Catalog, found: Found, missing: Sequence[str], vanished: Iterable[str]
) -> tuple[str, ...]:
    """Return the vanished sources that may be forgotten, sorted: without those of places in doubt.

    If images would be lost with a place in doubt, it is added to `found.unlisted`, and a warning says so.
    """
    forgotten = set(vanished)
    for place in _in_doubt([*found.places, *missing]):
        below = [uri for uri in forgotten if uri.startswith(place)]
        lost = catalog.count_only_at(below) if below else 0
        if lost:
            forgotten.difference_update(below)
            found.unlisted.append(place)
            log.warning(
                "kept images=%d of %s: it is empty or does not exist, and its disk may not be mounted; if it is gone "
                "for good, create the folder with any file in it and use --prune again",
                lost,
                path_of_uri(place),
            )
    return tuple(sorted(forgotten))


def gone_copies(catalog: Catalog, found: Found, vanished: Iterable[str]) -> tuple[str, ...]:
    """Return the local sources, sorted, of images that the run found whose other files no longer exist.

    After a folder was moved, only its new place is scanned: this finds the old one. Remote sources are not asked for.
    """
    known = set(vanished)
    others = (uri for uri in catalog.copies_elsewhere(found.pictures) if uri not in known and not is_remote(uri))
    return tuple(sorted(gone(others, found.unlisted)))


def _in_doubt(places: Sequence[str]) -> Iterator[str]:
    for place in places:
        if not place.endswith("/") or is_remote(place):
            continue
        path = path_of_uri(place)
        if os.path.lexists(path):
            if _is_empty(path) and _is_mount_point(path):
                yield place
        elif _is_empty(path.parent) or _is_mount_point(path):
            yield place
    for path in _listed_mount_points():
        folder = f"{path.as_uri().rstrip('/')}/"
        if folder.startswith(tuple(places)) and not path.is_mount():
            yield folder


def _is_mount_point(path: Path) -> bool:
    """Tell whether a disk is mounted here at times, by the name or by /etc/fstab."""
    parent = path.parent
    return parent in _MOUNTS or parent.parent in _MOUNTS_OF_USERS or path in _listed_mount_points()


def _listed_mount_points() -> list[Path]:
    try:
        lines = FSTAB.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    entries = [line.split() for line in lines if not line.lstrip().startswith("#")]
    spelled = [
        re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), entry[1]) for entry in entries if len(entry) > 1
    ]
    return [Path(name) for name in spelled if name.startswith("/") and name != "/"]


def _is_empty(folder: Path) -> bool:
    with suppress(OSError), os.scandir(folder) as entries:
        return next(entries, None) is None
    return False
