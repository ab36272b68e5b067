"""Open JPEG pictures, and refuse those that would take minutes to decode."""

import re

from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.images.pillow_formats import opener, recognizer

# Each scan of a progressive JPEG covers the whole image (0.1 s for 100 million pixels) and needs only a hundred bytes:
# a file within the byte limit could block a thread for hours. Encoders write about 10 scans.
_MAX_SCANS_AT_MOST_PIXELS = 32
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not a stuffed byte, a restart or a fill byte

is_jpeg = recognizer("JPEG")
open_jpeg = opener("JPEG")  # also several JPEGs in one file (MPO, of phones); the first is the photograph


def check_jpeg(content: bytes, picture: Image.Image, limits: ImageLimits) -> None:
    """Count the scans of a progressive JPEG."""
    if not picture.info.get("progressive"):
        return
    allowed = _MAX_SCANS_AT_MOST_PIXELS * limits.max_pixels // (picture.width * picture.height)
    position = scans = 0
    while scans <= allowed and (marker := _MARKER.search(content, position)):
        position, kind = marker.end(), content[marker.end() - 1]
        if kind == _END_OF_IMAGE:
            return
        if kind != _START_OF_IMAGE:  # all other markers between scans have a length field and a payload to skip
            position += max(2, int.from_bytes(content[position : position + 2], "big"))
        scans += kind == _START_OF_SCAN
    if scans > allowed:
        raise UnreadableImage(
            f"a progressive JPEG with more than {allowed:,} scans takes minutes to decode; save it again"
        )
