"""Open PNG pictures, and verify the checksums of their pixels."""

import zlib

from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.images.pillow_formats import opener, recognizer

is_png = recognizer("PNG")
open_png = opener("PNG")


def check_png(content: bytes, _picture: Image.Image, _limits: ImageLimits) -> None:
    """Verify the checksums of the pixel data, which Pillow skips: corruption would go unnoticed."""
    view, position = memoryview(content), 8
    while position < len(content) and (kind := content[position + 4 : position + 8]) != b"IEND":
        end = position + 8 + int.from_bytes(content[position : position + 4], "big")
        if kind == b"IDAT" and zlib.crc32(view[position + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise UnreadableImage(
                "PNG checksum mismatch, the pixel data is corrupt: restore the file, or save it again"
            )
        position = end + 4
