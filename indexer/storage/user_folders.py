"""Folders of the user who runs the process. In a container there may be no home, and no place for temporary files."""

import os
import tempfile
from pathlib import Path

from whatwhere.indexer.errors import InvalidRequest

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - of a container, often 64 KiB: room for a socket


def cache_folder() -> Path | None:
    """Return the user's folder of caches (XDG_CACHE_HOME, else ~/.cache), None without a home."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named)
    home = os.path.expanduser("~")
    return None if home == "~" else Path(home, ".cache")  # neither HOME nor an entry of the user in passwd


def temporary_folder(*, small: bool = False) -> str:
    """Return a writable folder for temporary files; for a `small` one, shared memory will do.

    Raises InvalidRequest if there is none.
    """
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        if small and os.access(_SHARED_MEMORY, os.W_OK):
            return _SHARED_MEMORY
        raise InvalidRequest("there is no writable folder for temporary files: set TMPDIR to one") from error
