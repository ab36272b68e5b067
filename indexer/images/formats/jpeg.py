"""Open JPEG pictures: common ones by Pillow, those of other precisions and lossless ones by imagecodecs."""

import io
from dataclasses import dataclass
from functools import partial

from PIL import Image, JpegImagePlugin

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.contained import contained
from whatwhere.indexer.images.formats.codestreams import jpeg_frame, jpeg_size
from whatwhere.indexer.images.formats.jpeg_scans import END_OF_IMAGE, is_ended, missing_rows, scans
from whatwhere.indexer.images.formats.lazy import LazyPicture
from whatwhere.indexer.images.formats.samples import to_bytes
from whatwhere.indexer.images.limits import ImageLimits

# Each scan of a progressive JPEG covers the whole image (0.1 s for 100 million pixels) and needs only a hundred bytes:
# a file within the byte limit could block a thread for hours. Encoders write about 10 scans.
_MAX_SCANS_AT_MOST_PIXELS = 32
_MAX_MISSING_ROWS = 0.1  # of a picture that is cut: the rest is what people would recognize
_LOSSLESS, _JPEG_LS = 0xC3, 0xF7
_DCT = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # baseline, extended, progressive, the last two arithmetic coded
_CHANNELS = (1, 3)


def is_jpeg(content: bytes) -> bool:
    """Recognize JPEG, also several in one file (MPO, of phones), of which the first is the photograph."""
    return content.startswith(b"\xff\xd8\xff")


class _EndedFile(io.BytesIO):
    """A file that ends with an end marker if its content does not: libjpeg decodes it as far as it goes."""

    _is_ended = False

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        if not found and size and not self._is_ended:
            self._is_ended = True
            return END_OF_IMAGE
        return found


@dataclass(frozen=True)
class _Frame:
    """What a JPEG's frame header says."""

    kind: int
    precision: int
    channels: int

    def __str__(self) -> str:
        name = {_LOSSLESS: "lossless JPEG", _JPEG_LS: "JPEG-LS"}.get(self.kind, "JPEG")
        return f"{self.precision}-bit {name} of {self.channels} channels"


def _frame(content: bytes) -> _Frame:
    start = jpeg_frame(content)
    if start is None:
        raise UnreadableImage("JPEG cut in its header; restore the file")
    return _Frame(content[start + 1], content[start + 4], int.from_bytes(content[start + 9 : start + 10], "big"))


def open_jpeg(content: bytes) -> Image.Image:
    """Read the header of a JPEG. Raises UnreadableImage for a kind that is not read, by its name."""
    frame = _frame(content)
    if frame.kind in _DCT and frame.precision == 8:
        return JpegImagePlugin.jpeg_factory(_EndedFile(content), "")
    size = jpeg_size(content)
    known = frame.kind in (*_DCT, _LOSSLESS, _JPEG_LS) and frame.channels in _CHANNELS
    if not known or size is None or 0 in size:
        raise UnreadableImage(f"{frame} (frame type {frame.kind:02X}), which is not read; save it as a common JPEG")
    if not is_ended(content):
        raise UnreadableImage(f"{frame} without its end; restore the file")
    return contained("JPEG")(content)


def open_rare_jpeg(content: bytes) -> Image.Image:
    """Open a JPEG that Pillow does not read, in the process that `contained` starts."""
    frame, size = _frame(content), jpeg_size(content)
    assert size is not None
    return LazyPicture(f"{frame}", size, partial(_decode, content, frame))


def _decode(content: bytes, frame: _Frame) -> Image.Image:
    try:
        import imagecodecs  # noqa: PLC0415 - an extra
    except ImportError:
        raise UnreadableImage(f"{frame}: reading this needs imagecodecs; pip install 'whatwhere[formats]'") from None
    samples = (imagecodecs.jpegls_decode if frame.kind == _JPEG_LS else imagecodecs.jpeg8_decode)(content)
    converted = to_bytes(samples.reshape(*samples.shape[:2], -1), frame.precision)
    return Image.fromarray(converted[:, :, 0] if converted.shape[2] == 1 else converted)


def check_jpeg(content: bytes, picture: Image.Image, limits: ImageLimits) -> None:
    """Count the scans of a progressive JPEG."""
    if not picture.info.get("progressive"):
        return
    allowed = _MAX_SCANS_AT_MOST_PIXELS * limits.max_pixels // (picture.width * picture.height)
    if sum(1 for _, _ in zip(scans(content), range(allowed + 1), strict=False)) > allowed:
        raise UnreadableImage(
            f"a progressive JPEG with more than {allowed:,} scans takes minutes to decode; save it again"
        )


def missing_jpeg_rows(content: bytes, picture: Image.Image) -> float | None:
    """Return the share of rows that a decoded JPEG lacks because its data is cut, None if it is complete.

    Raises UnreadableImage above a tenth.
    """
    if not isinstance(picture, JpegImagePlugin.JpegImageFile):
        return None
    missing = missing_rows(content, picture)
    if missing is not None and missing > _MAX_MISSING_ROWS:
        raise UnreadableImage(f"not a complete JPEG, {missing:.0%} of its rows are missing; restore the file")
    return missing
