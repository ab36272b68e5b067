"""Decode encoded images, within limits, to upright RGB pixels at the network's input size.

Formats: JPEG, PNG, WebP, GIF and TIFF (first frame or page), BMP; bilevel, gray, palette, RGB, alpha (composited over
white), CMYK, 16-bit gray. EXIF orientation is applied. ICC profiles are ignored: pixel values are taken as sRGB.

`ImageLimits` decides which images are too large. Pillow's own limit for the process, `PIL.Image.MAX_IMAGE_PIXELS`, is
neither changed nor applied when an image is opened. A few of Pillow's decoders apply it later: if the host program has
lowered it, they may refuse the image, as `ImageTooManyPixels`.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from whatwhere.indexer.errors import ImageTooManyBytes, ImageTooManyPixels, UnreadableImage
from whatwhere.indexer.images.avif import is_avif
from whatwhere.indexer.images.contained import contained
from whatwhere.indexer.images.family import Family
from whatwhere.indexer.images.heif import is_heif
from whatwhere.indexer.images.jpeg import check_jpeg, is_jpeg, open_jpeg
from whatwhere.indexer.images.jpeg2000 import is_jpeg2000
from whatwhere.indexer.images.jpegxl import is_jpegxl
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.images.pillow_formats import opener, recognizer
from whatwhere.indexer.images.png import check_png, is_png, open_png
from whatwhere.indexer.images.raw import RAW_SUFFIXES, is_raw
from whatwhere.indexer.images.rgb import to_rgb
from whatwhere.indexer.images.tiff import is_tiff, open_tiff

Pixels: TypeAlias = NDArray[np.uint8]
Scaled: TypeAlias = Callable[[int, int], tuple[int, int]]  # (width, height) → (width, height) after scaling

SHORTER_SIDE = 512
# The longer side is limited to aspect 4, so that no image costs more than three ordinary ones (4:3, 512 x 683).
MAX_ASPECT = 4
# Sides are rounded to the coarsest grid cell: the cells tile the image exactly, and there are few shapes.
SIDE_MULTIPLE = 32

# In the order in which they are asked whether a file is theirs.
FAMILIES = (
    Family("JPEG", "image/jpeg", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), is_jpeg, open_jpeg, check=check_jpeg),
    Family("PNG", "image/png", (".png",), is_png, open_png, check=check_png),
    Family("WEBP", "image/webp", (".webp",), recognizer("WEBP"), opener("WEBP")),
    Family("GIF", "image/gif", (".gif",), recognizer("GIF"), opener("GIF")),
    Family("HEIC", "", (".heic", ".heif", ".hif"), is_heif, contained("HEIC"), upright=True),
    Family("AVIF", "image/avif", (".avif",), is_avif, contained("AVIF")),
    Family("JPEG XL", "image/jxl", (".jxl",), is_jpegxl, contained("JPEG XL"), upright=True),
    Family("JPEG 2000", "image/jp2", (".jp2", ".j2k", ".jpf", ".jpx", ".j2c"), is_jpeg2000, contained("JPEG 2000")),
    Family("RAW", "", RAW_SUFFIXES, is_raw, contained("RAW")),  # before TIFF, which most camera files are
    Family("TIFF", "image/tiff", (".tif", ".tiff"), is_tiff, open_tiff, upright=True),
    Family("BMP", "image/bmp", (".bmp",), recognizer("BMP"), opener("BMP")),
)
SUFFIXES = frozenset(suffix for family in FAMILIES for suffix in family.suffixes)
# EXIF orientation → the transpose that makes the image upright. Not ImageOps.exif_transpose: it also rewrites the EXIF
# block, and fails on corrupt blocks of intact images.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = {_TRANSPOSES[number] for number in (5, 6, 7, 8)}
# A decoder needs up to 20 bytes a pixel (WebP), 2 GB at the limit. Images above this size are decoded one at a time,
# so that memory does not grow with the number of threads.
_LARGE_PIXELS = 16_000_000
_one_large_picture = threading.Lock()


@dataclass(frozen=True)
class DecodedImage:
    """An upright, scaled image: `pixels` uint8 [h, w, 3]; `width` and `height` are the original's, upright."""

    pixels: Pixels
    width: int
    height: int
    mime_type: str


def check_byte_count(name: str, byte_count: int, limits: ImageLimits) -> None:
    """Raise ImageTooManyBytes if the byte count exceeds the limit."""
    if byte_count > limits.max_bytes:
        raise ImageTooManyBytes(
            f"{name}: {byte_count:,} bytes, the limit is {limits.max_bytes:,}; use a smaller or more compressed image",
            field="image_content",
        )


def fitted_size(width: int, height: int, shorter_side: int = SHORTER_SIDE) -> tuple[int, int]:
    """Return (width, height) as multiples of 32, the shorter near `shorter_side`, the longer at most 4 times that."""
    scale = min(shorter_side / min(width, height), shorter_side * MAX_ASPECT / max(width, height))
    fitted = (max(1, round(side * scale / SIDE_MULTIPLE)) * SIDE_MULTIPLE for side in (width, height))
    return next(fitted), next(fitted)


def size_within(width: int, height: int, longer_side: int) -> tuple[int, int]:
    """Return (width, height) scaled down, keeping the aspect ratio, until the longer is at most `longer_side`."""
    scale = min(1.0, longer_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def open_picture(content: bytes, formats: Sequence[str] | None = None) -> Image.Image:
    """Read the header of an encoded picture of one of these families, of any by default.

    Raises UnidentifiedImageError for other formats, and anything else for a damaged header.
    """
    return _family(content, formats).open(content)


def _family(content: bytes, formats: Sequence[str] | None = None) -> Family:
    for family in FAMILIES:
        if (formats is None or family.name in formats) and family.recognizes(content):
            return family
    raise UnidentifiedImageError(f"none of {', '.join(formats or (family.name for family in FAMILIES))}")


def upright_size(content: bytes, name: str) -> tuple[int, int]:
    """Read (width, height) of the upright image from its header only.

    Raises UnreadableImage if the header cannot be read.
    """
    try:
        family = _family(content)
        with family.open(content) as picture:
            transpose = _upright_transpose(family, picture)
            return picture.size[::-1] if transpose in _SWAPPING else picture.size
    except Exception as error:  # as in decode_image
        raise UnreadableImage(f"{name}: not a JPEG, PNG, WebP, GIF, TIFF or BMP image") from error


def decode_image(
    content: bytes, name: str, *, limits: ImageLimits | None = None, shorter_side: int | None = SHORTER_SIDE
) -> DecodedImage:
    """Decode an image, apply its orientation and scale it (antialiased, bilinear) to `fitted_size`.

    `shorter_side=None` keeps the original size; `name` appears in error messages.
    Raises ImageTooManyBytes or ImageTooManyPixels, before decoding, if a limit is exceeded, and UnreadableImage if the
    image cannot be decoded.
    """
    scaled = None if shorter_side is None else partial(fitted_size, shorter_side=shorter_side)
    return _decoded(content, name, limits or ImageLimits(), scaled)


def decode_within(content: bytes, name: str, longer_side: int, *, limits: ImageLimits | None = None) -> DecodedImage:
    """Decode an image as `decode_image` does, but scaled to `size_within`."""
    return _decoded(content, name, limits or ImageLimits(), partial(size_within, longer_side=longer_side))


def _decoded(content: bytes, name: str, limits: ImageLimits, scaled: Scaled | None) -> DecodedImage:
    check_byte_count(name, len(content), limits)
    try:
        return _decode(content, name, limits, scaled)
    except ImageTooManyPixels:
        raise
    except UnreadableImage as error:
        raise UnreadableImage(f"{name}: {error}", field="image_content") from error.with_traceback(None)
    except Image.DecompressionBombError as error:
        raise ImageTooManyPixels(
            f"{name}: above the limit of this program for Pillow, PIL.Image.MAX_IMAGE_PIXELS; send a smaller image",
            field="image_content",
        ) from error.with_traceback(None)
    except Exception as error:  # decoders raise any type on invalid bytes: OSError, ValueError, struct.error, ...
        raise UnreadableImage(
            f"{name}: not a complete JPEG, PNG, WebP, GIF, TIFF or BMP image; save it again as one of these",
            field="image_content",
        ) from error.with_traceback(None)  # its frames would keep the pixels alive


def _decode(content: bytes, name: str, limits: ImageLimits, scaled: Scaled | None) -> DecodedImage:
    family = _family(content)
    with family.open(content) as picture:
        _check_pixel_count(name, getattr(picture, "sensor_size", picture.size), limits)
        family.check(content, picture, limits)
        with _one_large_picture if picture.width * picture.height > _LARGE_PIXELS else nullcontext():
            return _scaled_upright(family, picture, scaled)


def _check_pixel_count(name: str, size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooManyPixels(
            f"{name}: {width} x {height} pixels, the limit is {limits.max_pixels:,} in all; use a smaller image",
            field="image_content",
        )


def _scaled_upright(family: Family, picture: Image.Image, scaled: Scaled | None) -> DecodedImage:
    transpose = _upright_transpose(family, picture)
    size = picture.size
    if scaled is not None:
        # JPEG can be decoded at 1/2, 1/4 or 1/8 scale; twice the final size is enough for the antialiased resize.
        width, height = scaled(*size)
        picture.draft("RGB", (2 * width, 2 * height))
    upright = to_rgb(picture)
    if transpose is not None:
        upright = upright.transpose(transpose)
        size = size[::-1] if transpose in _SWAPPING else size
    if scaled is not None:
        upright = upright.resize(scaled(*size), Image.Resampling.BILINEAR)
    mime_type = family.mime_type or getattr(picture, "custom_mimetype", "")
    return DecodedImage(np.asarray(upright), *size, mime_type)


def _upright_transpose(family: Family, picture: Image.Image) -> Image.Transpose | None:
    """Return the transpose that makes the image upright, None where the decoder applies it."""
    return None if family.upright else _TRANSPOSES.get(_orientation(picture))


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) if the block is absent or corrupt: the pixels are still valid."""
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF parser raises many types
        return 1
