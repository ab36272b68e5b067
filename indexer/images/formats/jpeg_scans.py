"""Find out how much of a JPEG is missing.

libjpeg fills what is missing with gray, and says so nowhere. In a picture of one scan (most are) blocks come row by
row: the missing ones are the gray ones at the end. In a picture of several scans (progressive ones) each refines the
whole: the picture is complete if every coefficient is known but for its last bit.
"""

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.formats.codestreams import jpeg_frame

END_OF_IMAGE = b"\xff\xd9"
_START_OF_IMAGE, _END, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not a stuffed byte, a restart or a fill byte
_GRAY = 128
_BLOCK = 8  # pixels of a side, one after the reduction to an eighth
_COEFFICIENTS = 64


class Scan(NamedTuple):
    """A scan: where its data starts, its components, its coefficients, and its bits still to come."""

    start: int
    components: tuple[int, ...]
    first: int
    last: int
    bits_left: int


def scans(content: bytes) -> Iterator[Scan]:
    """Yield the scans of a JPEG up to its end marker."""
    for kind, position in _segments(content):
        if kind != _START_OF_SCAN:
            continue
        count = content[position + 2] if position + 2 < len(content) else 0
        header = content[position + 3 : position + 6 + 2 * count]
        if len(header) == 2 * count + 3:
            yield Scan(position, tuple(header[: 2 * count : 2]), header[-3], header[-2], header[-1] & 0xF)


def is_ended(content: bytes) -> bool:
    """Tell whether a JPEG has its end marker."""
    return content.rstrip(b"\0").endswith(END_OF_IMAGE) or end_of_image(content) is not None


def end_of_image(content: bytes) -> int | None:
    """Return the position of the end marker of the first image in a file, None if it is missing."""
    return next((position - len(END_OF_IMAGE) for kind, position in _segments(content) if kind == _END), None)


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the type of each marker and the position behind it, up to and with the end marker."""
    position = 0
    while marker := _MARKER.search(content, position):
        position, kind = marker.end(), content[marker.end() - 1]
        yield kind, position
        if kind == _END:
            return
        if kind != _START_OF_IMAGE:  # all other markers between scans have a length field and a payload to skip
            position += max(2, int.from_bytes(content[position : position + 2], "big"))


def missing_rows(content: bytes, picture: Image.Image) -> float | None:
    """Return the share of rows that a decoded JPEG lacks because its data is cut, None if it is complete."""
    is_complete, is_progressive = is_ended(content), bool(picture.info.get("progressive"))
    if is_complete and not is_progressive and not _is_gray(picture):
        return None
    found = list(scans(content))
    frame = jpeg_frame(content)
    components = 0 if frame is None else content[frame + 9]
    if not is_progressive and len(found) == 1 and len(found[0].components) == components:
        return _missing_in_one_scan(content)
    complete = found if is_complete else found[:-1]
    known = _known(complete, components)
    if known == _COEFFICIENTS * components:
        return None if is_complete else 0.0
    if not is_complete and _known(found, components) == _COEFFICIENTS * components:
        return _missing_in_last_scan(content, found[-1].start)
    raise UnreadableImage(
        f"not a complete JPEG, {len(complete)} scans hold {known} of {_COEFFICIENTS * components} coefficients; "
        "restore the file"
    )


def _is_gray(picture: Image.Image) -> bool:
    """Tell whether the last pixel is of the gray that libjpeg fills with."""
    pixel = picture.getpixel((picture.width - 1, picture.height - 1))
    values = pixel if isinstance(pixel, tuple) else (pixel,)
    return all(value is not None and abs(value - _GRAY) <= 1 for value in values)


def _known(found: list[Scan], components: int) -> int:
    """Count the coefficients, of all components, that are known but for their last bit."""
    known = {
        (component, coefficient)
        for scan in found
        if scan.bits_left <= 1
        for component in scan.components
        for coefficient in range(scan.first, min(scan.last, _COEFFICIENTS - 1) + 1)
    }
    return min(len(known), _COEFFICIENTS * components)


# --- measuring ----------------------------------------------------------------------------------------------------


def _missing_in_one_scan(content: bytes) -> float | None:
    end = end_of_image(content)
    data = content if end is None else content[:end]
    filled, sampling = _decoded(data + END_OF_IMAGE)
    gray = _units(np.abs(filled.astype(int) - _GRAY) <= (0 if filled.ndim == 2 else 1), sampling)
    count = _trailing(gray)
    if end is None:
        return count / gray.size
    # Gray that was drawn is decoded without an end marker as well; what libjpeg fills in is not, and stays black. The
    # last row of units waits for the marker in any case.
    partial, _ = _decoded(data)
    black = _trailing(_units(partial == 0, sampling))
    return min(count, black) / gray.size if min(count, black) > gray.shape[1] else None


def _decoded(data: bytes) -> tuple[NDArray[Any], tuple[int, int]]:
    """Decode as far as it goes, at an eighth and gray if possible; return it with the blocks of a unit (w, h)."""
    picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    sampling = [(layer[1], layer[2]) for layer in picture.layer]
    across, down = (max(side) for side in zip(*sampling, strict=True)) if len(sampling) > 1 else (1, 1)
    picture.draft("L", (max(1, picture.width // _BLOCK), max(1, picture.height // _BLOCK)))
    with suppress(OSError):  # cut: the rows before are there
        picture.load()
    canvas = Image.new(picture.mode, picture.size)
    canvas.im = picture.im
    return np.asarray(canvas), (across, down)


def _units(marked: NDArray[Any], sampling: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell for each unit of blocks [rows, columns] whether all its pixels are marked."""
    (height, width), (across, down) = marked.shape[:2], sampling
    rows, columns = -(-height // down), -(-width // across)
    padded = np.ones((rows * down, columns * across), bool)
    padded[:height, :width] = marked.reshape(height, width, -1).all(axis=2)
    units: NDArray[np.bool_] = np.all(padded.reshape(rows, down, columns, across), axis=(1, 3))
    return units


def _trailing(units: NDArray[np.bool_]) -> int:
    """Count the marked units at the end, in the order in which they are stored."""
    others = np.flatnonzero(~units)
    return units.size - (int(others[-1]) + 1 if others.size else 0)


def _missing_in_last_scan(content: bytes, start: int) -> float:
    """Return the share of rows behind the last one that the last scan changes."""
    cut = content.rindex(END_OF_IMAGE[:1], 0, start)
    without, with_it = (_rows(data + END_OF_IMAGE) for data in (content[:cut], content))
    changed = np.flatnonzero((with_it != without).reshape(len(without), -1).any(axis=1))
    return 1 - (int(changed[-1]) + 1) / len(without) if changed.size else 1.0


def _rows(data: bytes) -> NDArray[np.uint8]:
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as picture:
        return np.asarray(picture)
