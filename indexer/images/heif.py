"""Open HEIC and other HEIF pictures with libheif and libde265 (pi-heif)."""

import io
import threading
from typing import Any

from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.color_codes import to_srgb
from whatwhere.indexer.images.iso_boxes import color_codes
from whatwhere.indexer.images.lazy import LazyPicture, reason
from whatwhere.indexer.images.signatures import MAGIC_BYTES, looks_like_image

_one_header = threading.Lock()  # the number of threads is a global of pi_heif, read with the header


def is_heif(content: bytes) -> bool:
    """Tell by the brands whether a file is HEIC or other HEIF."""
    return looks_like_image(content[:MAGIC_BYTES]) in ("HEIC", "HEIF")


def open_heif(content: bytes) -> Image.Image:
    """Read the header of the primary picture; `load()` decodes it, in sRGB if code points name its colors.

    libheif applies `irot`, `imir` and `clap`, and reduces 10 and 12 bits to 8. EXIF's orientation repeats that of
    `irot` and is ignored, as the standard demands. Raises UnreadableImage if the header is damaged, the codec is
    none of HEVC, or pi-heif is not installed.
    """
    name = looks_like_image(content[:MAGIC_BYTES]) or "HEIF"
    picture = _header(content, name)
    codes = None if "icc_profile" in picture.info else color_codes(content)
    info: dict[Any, Any] = {key: picture.info[key] for key in ("exif", "icc_profile") if picture.info.get(key)}
    return LazyPicture(
        name,
        picture.size,
        lambda: picture if codes is None else to_srgb(picture, *codes),
        info=info,
        mime_type=f"image/{name.lower()}",
    )


def _header(content: bytes, name: str) -> Any:
    try:
        import pi_heif  # noqa: PLC0415 - only for the pictures that need it
    except ImportError as error:
        raise UnreadableImage(f"{name} needs pi-heif: pip install 'whatwhere[formats]'") from error
    try:
        with _one_header:
            before, pi_heif.options.DECODE_THREADS = pi_heif.options.DECODE_THREADS, 1
            try:
                return pi_heif.HeifImageFile(io.BytesIO(content), "")
            finally:
                pi_heif.options.DECODE_THREADS = before
    except Exception as error:  # any type on invalid bytes
        raise UnreadableImage(f"{name} with a damaged header, {reason(error)}; restore the file") from error
