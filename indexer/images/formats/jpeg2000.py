"""Open JPEG 2000 pictures with OpenJPEG (Pillow)."""

import io
from typing import Any

from PIL import Image, Jpeg2KImagePlugin, features

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.contents import printable_reason
from whatwhere.indexer.images.formats.iso_boxes import boxes
from whatwhere.indexer.images.formats.lazy import LazyPicture
from whatwhere.indexer.images.signatures import MAGIC_BYTES, looks_like_image

_EXIF_UUID = b"JpgTiffExif->JP2"  # of the box that Exiv2 and ExifTool write


def is_jpeg2000(content: bytes) -> bool:
    """Tell by the first bytes whether a file is JPEG 2000."""
    return looks_like_image(content[:MAGIC_BYTES]) == "JPEG 2000"


def open_jpeg2000(content: bytes) -> Image.Image:
    """Read the header; `load()` decodes, at a reduced resolution if `draft` allows it.

    Raises UnreadableImage if the header is damaged, or Pillow was built without JPEG 2000.
    """
    if not features.check("jpg_2000"):
        raise UnreadableImage("JPEG 2000 needs a Pillow built with OpenJPEG: pip install --force-reinstall pillow")
    try:
        return _Jpeg2000(content)
    except Exception as error:  # any type on invalid bytes
        raise UnreadableImage(
            f"JPEG 2000 with a damaged header, {printable_reason(error)}; restore the file"
        ) from error


class _Jpeg2000(LazyPicture):
    def __init__(self, content: bytes) -> None:
        self._content, self._power = content, 0
        picture = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(content), "")
        info: dict[Any, Any] = dict(picture.info)
        if exif := exif_bytes(content):
            info["exif"] = exif
        super().__init__("JPEG 2000", picture.size, self._pixels, info=info)

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> None:
        """Decode fewer resolution levels, as long as the picture stays as large as `size`."""
        del mode
        width, height = self.size
        for power in range(1, _levels(self._content) + 1):
            if size is None or width >> power < size[0] or height >> power < size[1]:
                return
            # Pillow halves all at once and OpenJPEG one by one: where they round differently, Pillow cannot read it.
            if _halved(width, power) == -(-width >> power) and _halved(height, power) == -(-height >> power):
                self._power, self._size = power, (_halved(width, power), _halved(height, power))

    def _pixels(self) -> Image.Image:
        picture = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(self._content), "")
        picture.reduce = self._power
        return picture


def _halved(side: int, power: int) -> int:
    """Return a side after `power` halvings as Pillow computes it."""
    return (side + (1 << power >> 1)) >> power


def _levels(content: bytes) -> int:
    """Return how often the picture can be halved: the decomposition levels of the main header's COD segment."""
    at = content.find(b"\xff\x4f\xff\x51") + 2
    for _ in range(64):
        marker, length = content[at : at + 2], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == b"\xff\x52":
            return content[at + 9] if at + 9 < len(content) else 0
        if marker == b"\xff\x90" or length < 2:  # the first tile
            break
        at += 2 + length
    return 0


def exif_bytes(content: bytes) -> bytes:
    """Return the EXIF block of a JP2 file, from its TIFF header on, b"" if there is none."""
    for box in boxes(content):
        if box.kind == b"uuid" and content[box.start : box.start + 16] == _EXIF_UUID:
            return content[box.start + 16 : box.end]
    return b""
