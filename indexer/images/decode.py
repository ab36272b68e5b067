"""Decode encoded images, within limits, to upright RGB pixels at the network's input size.

Each family of formats has a file here; `FAMILIES` lists them. EXIF orientation is applied. Transparency is composited
over white. Colors are converted to sRGB by the picture's ICC profile; without a usable one they are taken as sRGB.

`ImageLimits` decides which images are too large. Pillow's own limit for the process, `PIL.Image.MAX_IMAGE_PIXELS`, is
neither changed nor applied when an image is opened. A few of Pillow's decoders apply it later: if the host program has
lowered it, they may refuse the image, as `ImageTooManyPixels`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from whatwhere.indexer.errors import ImageTooManyBytes, ImageTooManyPixels, UnreadableImage
from whatwhere.indexer.images.color import color_mode, srgb_transform
from whatwhere.indexer.images.contained import contained
from whatwhere.indexer.images.contents import content_kind, printable_reason
from whatwhere.indexer.images.formats.avif import is_avif
from whatwhere.indexer.images.formats.common import opener, recognizer
from whatwhere.indexer.images.formats.family import Family
from whatwhere.indexer.images.formats.heif import is_heif
from whatwhere.indexer.images.formats.jpeg import check_jpeg, is_jpeg, missing_jpeg_rows, open_jpeg
from whatwhere.indexer.images.formats.jpeg2000 import is_jpeg2000
from whatwhere.indexer.images.formats.jpegxl import is_jpegxl
from whatwhere.indexer.images.formats.png import check_png, is_png, open_png
from whatwhere.indexer.images.formats.raw import RAW_SUFFIXES, is_raw
from whatwhere.indexer.images.formats.tiff import check_tiff, is_tiff, open_tiff
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.images.orientation import SWAPPING, TRANSPOSES
from whatwhere.indexer.images.rgb import flattened

Pixels: TypeAlias = NDArray[np.uint8]
Scaled: TypeAlias = Callable[[int, int], tuple[int, int]]  # (width, height) → (width, height) after scaling

SHORTER_SIDE = 512
# The longer side is limited to aspect 4, so that no image costs more than three ordinary ones (4:3, 512 x 683).
MAX_ASPECT = 4
# Sides are rounded to the coarsest grid cell: the cells tile the image exactly, and there are few shapes.
SIDE_MULTIPLE = 32

# In the order in which they are asked whether a file is theirs.
FAMILIES = (
    Family(
        "JPEG",
        "image/jpeg",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        is_jpeg,
        open_jpeg,
        check=check_jpeg,
        missing_rows=missing_jpeg_rows,
    ),
    Family("PNG", "image/png", (".png",), is_png, open_png, check=check_png),
    Family("WebP", "image/webp", (".webp",), recognizer("WEBP"), opener("WEBP")),
    Family("GIF", "image/gif", (".gif",), recognizer("GIF"), opener("GIF")),
    Family("HEIC", "", (".heic", ".heif", ".hif"), is_heif, contained("HEIC"), upright=True),
    Family("AVIF", "image/avif", (".avif",), is_avif, contained("AVIF")),
    Family("JPEG XL", "image/jxl", (".jxl",), is_jpegxl, contained("JPEG XL"), upright=True),
    Family("JPEG 2000", "image/jp2", (".jp2", ".j2k", ".jpf", ".jpx", ".j2c"), is_jpeg2000, contained("JPEG 2000")),
    Family("RAW", "", RAW_SUFFIXES, is_raw, contained("RAW")),  # before TIFF, which most camera files are
    Family("TIFF", "image/tiff", (".tif", ".tiff"), is_tiff, open_tiff, check=check_tiff, upright=True),
    Family("BMP", "image/bmp", (".bmp",), recognizer("BMP"), opener("BMP")),
)
SUFFIXES = frozenset(suffix for family in FAMILIES for suffix in family.suffixes)
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
    missing_rows: float | None = None  # the share that a truncated file lacks, at the bottom; None if it is complete


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


def open_picture(content: bytes) -> Image.Image:
    """Read the header of an encoded picture.

    Raises UnidentifiedImageError for other formats, and anything else for a damaged header.
    """
    family = _family(content)
    if family is None:
        raise UnidentifiedImageError(content_kind(content))
    return family.open(content)


def _family(content: bytes) -> Family | None:
    return next((family for family in FAMILIES if family.recognizes(content)), None)


def upright_size(content: bytes, name: str) -> tuple[int, int]:
    """Read (width, height) of the upright image from its header only.

    Raises UnreadableImage if the header cannot be read.
    """
    with _named_errors(name):
        family, picture = _opened(content)
        with picture:
            transpose = _upright_transpose(family, picture)
            return picture.size[::-1] if transpose in SWAPPING else picture.size


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
    with _named_errors(name):
        family, picture = _opened(content)
        with picture:
            return _decode(content, family, picture, limits, scaled)


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Put the file's name before the messages of errors, and drop tracebacks: their frames keep the pixels alive."""
    try:
        yield
    except (ImageTooManyPixels, UnreadableImage) as error:
        cause = error.with_traceback(None).__cause__ or error
        raise type(error)(f"{name}: {error}", field="image_content") from cause.with_traceback(None)
    except Image.DecompressionBombError as error:
        raise ImageTooManyPixels(
            f"{name}: above the limit of this program for Pillow, PIL.Image.MAX_IMAGE_PIXELS; send a smaller image",
            field="image_content",
        ) from error.with_traceback(None)


def _opened(content: bytes) -> tuple[Family, Image.Image]:
    """Return the family of a file and its picture, of which the header is read."""
    family = _family(content)
    if family is None:
        raise UnreadableImage(f"not an image that can be read: {content_kind(content)}")
    try:
        return family, family.open(content)
    except (UnreadableImage, Image.DecompressionBombError):
        raise
    except Exception as error:  # decoders raise any type on invalid bytes: OSError, ValueError, struct.error, ...
        reason = printable_reason(error)
        raise UnreadableImage(f"{family.name} with a damaged header ({reason}); restore the file") from error


def _decode(
    content: bytes, family: Family, picture: Image.Image, limits: ImageLimits, scaled: Scaled | None
) -> DecodedImage:
    width, height = picture.size
    _check_pixel_count(getattr(picture, "sensor_size", picture.size), limits)
    family.check(content, picture, limits)
    try:
        with _one_large_picture if width * height > _LARGE_PIXELS else nullcontext():
            decoded = _scaled_upright(family, picture, scaled)
            return replace(decoded, missing_rows=family.missing_rows(content, picture))
    except (UnreadableImage, Image.DecompressionBombError):
        raise
    except Exception as error:  # as above
        reason = printable_reason(error)
        raise UnreadableImage(
            f"not a complete {family.name} ({width} x {height} pixels: {reason}); restore the file or save it again"
        ) from error


def _check_pixel_count(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooManyPixels(
            f"{width} x {height} pixels, the limit is {limits.max_pixels:,} in all; use a smaller image"
        )


def _scaled_upright(family: Family, picture: Image.Image, scaled: Scaled | None) -> DecodedImage:
    size = picture.size
    if scaled is not None:
        # JPEG can be decoded at 1/2, 1/4 or 1/8 scale; twice the final size is enough for the antialiased resize.
        width, height = scaled(*size)
        picture.draft("RGB", (2 * width, 2 * height))
    picture.load()
    to_srgb = srgb_transform(picture)
    upright = flattened(picture, "RGB" if to_srgb is None else color_mode(picture))
    transpose = _upright_transpose(family, picture)  # after the pixels: PNG's EXIF may follow them
    if transpose is not None:
        upright = upright.transpose(transpose)
        size = size[::-1] if transpose in SWAPPING else size
    if scaled is not None:
        upright = upright.resize(scaled(*size), Image.Resampling.BILINEAR)
    if to_srgb is not None:  # of the scaled picture: 15 ms, where decoding a photograph takes 120
        upright = to_srgb.apply(upright)
    mime_type = family.mime_type or getattr(picture, "custom_mimetype", "")
    return DecodedImage(np.asarray(upright), *size, mime_type)


def _upright_transpose(family: Family, picture: Image.Image) -> Image.Transpose | None:
    """Return the transpose that makes the image upright, None where the decoder applies it."""
    return None if family.upright else TRANSPOSES.get(_orientation(picture))


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) if the block is absent or corrupt: the pixels are still valid."""
    try:
        # the base class's: PNG's own would decode the pixels, and an error of that must not be lost here
        return int(Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF parser raises many types
        return 1
