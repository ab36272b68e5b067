"""Files of this machine."""

import stat
from pathlib import Path

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.decode import check_byte_count
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.storage.files import printable


def read_file(path: Path, limits: ImageLimits) -> bytes:
    """Return a file's bytes; what is not a regular file (a pipe would block for ever) or too large is not opened."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage(f"{printable(path)}: not a regular file")
    check_byte_count(printable(path), status.st_size, limits)
    if status.st_size == 0:
        return b""  # also what /proc calls empty, where reading may wait for ever
    with path.open("rb") as file:
        content = file.read(limits.max_bytes + 1)  # a file may grow while it is read
    check_byte_count(printable(path), len(content), limits)
    return content
