"""The local cache of collections in object stores: copies of files, least recently used deleted first."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.storage.user_folders import cache_folder

CACHE = "WHATWHERE_CACHE"  # environment variable for the folder; default: whatwhere/ in the user's cache
CACHE_BYTES = "WHATWHERE_CACHE_BYTES"
_DEFAULT_BYTES = 20 * 10**9


def cache_of(address: str) -> Path:
    """Return the folder for the copies of one collection's files. Raises InvalidRequest if there is no place for it."""
    caches = cache_folder()
    if not os.environ.get(CACHE) and caches is None:
        raise InvalidRequest(
            f"{address} needs a folder for copies of its files, and this user has no home: set {CACHE} to one",
            field="collection",
        )
    base = Path(os.environ.get(CACHE) or Path(caches or "", "whatwhere"))
    return base / hashlib.sha256(address.encode()).hexdigest()[:16]


def note_use(path: Path) -> None:
    """Mark a file as used now."""
    os.utime(path)


def make_room(root: Path) -> None:
    """Delete the least recently used files below `root` until the rest fits into WHATWHERE_CACHE_BYTES.

    Files that are mapped into memory stay readable there. The newest file stays, even if it is larger.
    """
    allowed = int(os.environ.get(CACHE_BYTES, _DEFAULT_BYTES))
    files = []
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):  # another process deleted it, too
                status = path.stat(follow_symlinks=False)
                files.append((status.st_mtime_ns, status.st_size, path))
    files.sort(reverse=True)
    held = 0
    for place, (_, byte_count, path) in enumerate(files):
        held += byte_count
        if place and held > allowed:
            path.unlink(missing_ok=True)
