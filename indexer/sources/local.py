"""Read local files."""

import os
import stat
from pathlib import Path

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.decode import check_byte_count
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.sources.uris import is_remote
from whatwhere.indexer.storage.files import path_of_uri, printable


def is_local_and_gone(uri: str) -> bool:
    """Tell whether a local file does not exist. Remote URIs are not asked for."""
    return not is_remote(uri) and not os.path.lexists(path_of_uri(uri))


def read_file(path: Path, limits: ImageLimits) -> bytes:
    """Read a regular file within the byte limit.

    Raises UnreadableImage if it is not a regular file (a pipe would block forever), ImageTooManyBytes if it exceeds
    the limit, and OSError if it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage(f"{printable(path)}: not a regular file")
    check_byte_count(printable(path), status.st_size, limits)
    if status.st_size == 0:
        return b""  # not even opened: files in /proc report size 0, and reading them may block forever
    with path.open("rb") as file:
        content = file.read(limits.max_bytes + 1)  # the file may grow meanwhile
    check_byte_count(printable(path), len(content), limits)
    return content


def read_head(path: str, byte_count: int) -> bytes | None:
    """Read the first bytes of a file; return None if it is not a regular file.

    A scan calls it for each file of an unknown type: by descriptor and text it takes half the time of a `Path`. Raises
    OSError if the file cannot be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size == 0:
        return b""  # as in read_file
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        return os.read(descriptor, byte_count)
    finally:
        os.close(descriptor)
