"""Read local files."""

import os
import stat
from pathlib import Path

from whatwhere.indexer.errors import ImageTooManyBytes, UnreadableImage
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.sources.uris import is_remote
from whatwhere.indexer.storage.bounded import FileTooLarge, NotAFile, read_bounded
from whatwhere.indexer.storage.files import path_of_uri, printable


def is_local_and_gone(uri: str) -> bool:
    """Tell whether a local file does not exist. Remote URIs are not asked for."""
    return not is_remote(uri) and not os.path.lexists(path_of_uri(uri))


def read_file(path: Path, limits: ImageLimits) -> bytes:
    """Read a regular file within the byte limit.

    Raises UnreadableImage if it is not a regular file (a pipe would block forever), ImageTooManyBytes if it exceeds
    the limit, and OSError if it cannot be read.
    """
    try:
        return read_bounded(path, limits.max_bytes)
    except NotAFile as error:
        raise UnreadableImage(f"{printable(path)}: {error.strerror}", field="image_content") from error
    except FileTooLarge as error:
        raise ImageTooManyBytes(
            f"{printable(path)}: {error.strerror}; use a smaller or more compressed image", field="image_content"
        ) from error


def read_head(path: str, byte_count: int) -> bytes | None:
    """Read the first bytes of a file; return None if it is not a regular file.

    A scan calls it for each file of an unknown type: by descriptor and text it takes half the time of a `Path`. Raises
    OSError if the file cannot be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size == 0:
        return b""  # as in read_bounded
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        return os.read(descriptor, byte_count)
    finally:
        os.close(descriptor)
