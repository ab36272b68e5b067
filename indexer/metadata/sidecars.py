"""Read sidecar files: `photo.jpg.json` beside `photo.jpg`."""

import stat
from pathlib import Path

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.metadata.values import checked, json_object
from whatwhere.indexer.storage.files import printable

MAX_SIDECAR_BYTES = 1024 * 1024


SIDECAR_SUFFIX = ".json"


def sidecar_of(path: Path) -> Path:
    """Return the path of an image's sidecar: `photo.jpg.json` for `photo.jpg`."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def read_sidecar(path: Path) -> dict[str, object]:
    """Read the metadata values of a sidecar, one JSON object.

    Raises InvalidRequest if the file cannot be read, exceeds MAX_SIDECAR_BYTES, or is not valid.
    """
    name = printable(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
            raise InvalidRequest(f"{name}: not a regular file", field="metadata")
        if status.st_size > MAX_SIDECAR_BYTES:
            message = f"{name}: {status.st_size:,} bytes, the limit for a sidecar is {MAX_SIDECAR_BYTES:,}"
            raise InvalidRequest(message, field="metadata")
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{name}: cannot be read: {error.strerror}", field="metadata") from error
    return sidecar_values(content, name)


def sidecar_values(content: bytes, name: str) -> dict[str, object]:
    """Parse the metadata values of a sidecar's bytes.

    Raises InvalidRequest, its message prefixed with `name`, if they are not a JSON object of valid values.
    """
    return checked(json_object(content, name), name)
