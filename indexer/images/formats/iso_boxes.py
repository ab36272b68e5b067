"""Walk the boxes of ISO containers: HEIF, AVIF, JPEG XL, JPEG 2000 and Canon's CR3. Pure bytes."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

_MAX_BOXES = 4_096  # of one level: a file of empty boxes costs no more


class Box(NamedTuple):
    """A box: its four-letter type, and where its payload starts and ends in the file."""

    kind: bytes
    start: int
    end: int


def boxes(content: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes between two offsets, up to the first that does not fit."""
    end = len(content) if end is None else end
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", content, start)
        header = 8
        if size == 1 and start + 16 <= end:
            (size,), header = struct.unpack_from(">Q", content, start + 8), 16
        elif size == 0:  # up to the end
            size = end - start
        if size < header or start + size > end:
            return
        yield Box(kind, start + header, start + size)
        start += size


def descend(content: bytes, *path: bytes) -> Iterator[Box]:
    """Yield the boxes at a path such as (b"meta", b"iprp"); `meta` has four bytes of version and flags to skip."""
    found = list(boxes(content))
    for depth, kind in enumerate(path):
        matching = [box for box in found if box.kind == kind]
        if depth == len(path) - 1:
            yield from matching
            return
        skipped = 4 if kind == b"meta" else 0
        found = [inner for box in matching for inner in boxes(content, box.start + skipped, box.end)]


def color_codes(content: bytes) -> tuple[int, int] | None:
    """Return (primaries, transfer) of HEIF's or AVIF's first `nclx` color box, numbers of ITU-T H.273."""
    for box in descend(content, b"meta", b"iprp", b"ipco", b"colr"):
        if content[box.start : box.start + 4] == b"nclx" and box.end - box.start >= 8:
            primaries, transfer = struct.unpack_from(">HH", content, box.start + 4)
            return primaries, transfer
    return None
