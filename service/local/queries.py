"""Read the files that a question names."""

from pathlib import Path

from whatwhere.indexer.errors import ImageTooManyBytes, InvalidRequest
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.storage.bounded import FileTooLarge, read_bounded

A_FILE = "give an image file"
A_FILE_OR_STORED = f"{A_FILE}, or a stored image's name such as images/12"
LIMITS = ImageLimits()  # nobody else waits here: a file may be as large as an indexed one


def read_query(path: Path, remedy: str, field: str = "image") -> bytes:
    """Return the content of an image file.

    Raises ImageTooManyBytes, and InvalidRequest with the remedy if it is not a file or cannot be read.
    """
    try:
        return read_bounded(path, LIMITS.max_bytes)
    except FileTooLarge as error:
        raise ImageTooManyBytes(
            f"{path}: {error.strerror}; use a smaller or more compressed image", field=field
        ) from error
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}; {remedy}", field=field) from error
