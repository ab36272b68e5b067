"""Read sidecar files: our own JSON, Google Takeout's, and XMP. Which image they belong to: see `sidecar_names`."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.metadata.sidecar_names import XMP
from whatwhere.indexer.metadata.takeout import is_takeout, takeout_values
from whatwhere.indexer.metadata.values import checked, json_object
from whatwhere.indexer.metadata.xmp import xmp_values
from whatwhere.indexer.storage.bounded import read_bounded
from whatwhere.indexer.storage.files import printable

MAX_SIDECAR_BYTES = 1024 * 1024
_TAKEOUT, _XMP, _JSON = range(3)  # in rising precedence: what people wrote last wins


class Sidecar(NamedTuple):
    """What a sidecar says, and how much it counts beside others of the same image."""

    precedence: tuple[int, int]
    values: dict[str, object]


def read_sidecar(path: Path, *, gps: bool = False) -> Sidecar:
    """Read a sidecar; a position only with `gps`, except from a JSON object of our own form.

    Raises InvalidRequest if the file cannot be read, exceeds MAX_SIDECAR_BYTES, or is not valid.
    """
    name = printable(path)
    try:
        content = read_bounded(path, MAX_SIDECAR_BYTES)
    except OSError as error:
        raise InvalidRequest(f"{name}: cannot be read: {error.strerror}", field="metadata") from error
    return parse_sidecar(content, name, gps=gps)


def parse_sidecar(content: bytes, name: str, *, gps: bool = False) -> Sidecar:
    """Parse the bytes of a sidecar; `name` tells XMP from JSON.

    Raises InvalidRequest, its message prefixed with `name`, if they are neither XMP nor a JSON object of valid values.
    """
    if name.lower().endswith(XMP):
        return Sidecar((_XMP, len(name)), checked(xmp_values(content, name, gps=gps), name))
    values = json_object(content, name)
    if is_takeout(values):
        return Sidecar((_TAKEOUT, len(name)), checked(takeout_values(values, gps=gps), name))
    return Sidecar((_JSON, len(name)), checked(values, name))


def merged(sidecars: Iterable[Sidecar]) -> dict[str, object]:
    """Merge the sidecars of one image, field by field: JSON of our own form counts before XMP, XMP before Takeout.

    Of two XMP files, photo.jpg.xmp counts before photo.xmp.
    """
    union: dict[str, object] = {}
    for sidecar in sorted(sidecars, key=lambda sidecar: sidecar.precedence):
        union |= sidecar.values
    return union
