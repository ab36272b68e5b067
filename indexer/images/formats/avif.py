"""Open AVIF pictures with libavif and dav1d (Pillow)."""

import io
import threading

from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.color_codes import to_srgb
from whatwhere.indexer.images.contents import printable_reason
from whatwhere.indexer.images.formats.iso_boxes import color_codes
from whatwhere.indexer.images.formats.lazy import LazyPicture
from whatwhere.indexer.images.signatures import MAGIC_BYTES, looks_like_image

_one_header = threading.Lock()  # the number of threads is a global of Pillow's plugin, read with the header


def is_avif(content: bytes) -> bool:
    """Tell by the brands whether a file is AVIF."""
    return looks_like_image(content[:MAGIC_BYTES]) == "AVIF"


def open_avif(content: bytes) -> Image.Image:
    """Read the header; `load()` decodes the first frame, in sRGB if code points name its colors.

    The orientation that `irot` and `imir` demand stands in the EXIF block, where Pillow puts it. Raises
    UnreadableImage if the header is damaged, or Pillow was built without AVIF.
    """
    picture = _header(content)
    codes = None if "icc_profile" in picture.info else color_codes(content)
    return LazyPicture(
        "AVIF", picture.size, lambda: picture if codes is None else to_srgb(picture, *codes), info=picture.info
    )


def _header(content: bytes) -> Image.Image:
    try:
        from PIL import AvifImagePlugin  # noqa: PLC0415 - Pillow 11.3 and newer
    except ImportError as error:
        raise UnreadableImage("AVIF needs Pillow 11.3 or newer: pip install --upgrade pillow") from error
    if not AvifImagePlugin.SUPPORTED:
        raise UnreadableImage("AVIF needs a Pillow built with libavif: pip install --force-reinstall pillow")
    try:
        with _one_header:
            before, AvifImagePlugin.DEFAULT_MAX_THREADS = AvifImagePlugin.DEFAULT_MAX_THREADS, 1
            try:
                return AvifImagePlugin.AvifImageFile(io.BytesIO(content), "")
            finally:
                AvifImagePlugin.DEFAULT_MAX_THREADS = before
    except Exception as error:  # any type on invalid bytes
        raise UnreadableImage(f"AVIF with a damaged header, {printable_reason(error)}; restore the file") from error
