"""Decode encoded images, within limits, to upright RGB pixels at the network's input size.

Formats: JPEG, PNG, WebP, GIF and TIFF (first frame or page), BMP; bilevel, gray, palette, RGB, alpha (composited over
white), CMYK, 16-bit gray. EXIF orientation is applied. ICC profiles are ignored: pixel values are taken as sRGB.

`ImageLimits` decides which images are too large. Pillow's own limit for the process, `PIL.Image.MAX_IMAGE_PIXELS`, is
neither changed nor applied when an image is opened. A few of Pillow's decoders apply it later: if the host program has
lowered it, they may refuse the image, as `ImageTooManyPixels`.
"""

import io
import re
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import (  # each plugin registers its format
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from whatwhere.indexer.errors import ImageTooManyBytes, ImageTooManyPixels, UnreadableImage
from whatwhere.indexer.images.limits import ImageLimits

Pixels: TypeAlias = NDArray[np.uint8]
Scaled: TypeAlias = Callable[[int, int], tuple[int, int]]  # (width, height) → (width, height) after scaling

SHORTER_SIDE = 512
# The longer side is limited to aspect 4, so that no image costs more than three ordinary ones (4:3, 512 x 683).
MAX_ASPECT = 4
# Sides are rounded to the coarsest grid cell: the cells tile the image exactly, and there are few shapes.
SIDE_MULTIPLE = 32

_MIME_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # several JPEGs in one file (phones); the first is the photograph
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
}
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp"})
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
_MAGIC_BYTES = 16  # of the file: Pillow recognizes a format by them
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
_STRIP_PIXELS = 4_000_000  # converted at a time, so that intermediate copies stay small
# Each scan of a progressive JPEG covers the whole image (0.1 s for 100 million pixels) and needs only a hundred bytes:
# a file within the byte limit could block a thread for hours. Encoders write about 10 scans.
_MAX_SCANS_AT_MOST_PIXELS = 32
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not a stuffed byte, a restart or a fill byte


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


def open_picture(content: bytes, formats: Sequence[str] = _FORMATS) -> ImageFile.ImageFile:
    """Read the header of an encoded picture of one of these formats, by the names that Pillow has for them.

    By the format's own class: `PIL.Image.open` would also compare the picture's size with the limit of the process,
    and warn above it. Raises UnidentifiedImageError for other formats, and anything else for a damaged header.
    """
    for name in formats:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(content[:_MAGIC_BYTES]) is True:  # a text where Pillow was built without it
            return factory(io.BytesIO(content), "")
    raise UnidentifiedImageError(f"none of {', '.join(formats)}")


def upright_size(content: bytes, name: str) -> tuple[int, int]:
    """Read (width, height) of the upright image from its header only.

    Raises UnreadableImage if the header cannot be read.
    """
    try:
        with open_picture(content) as picture:
            transpose = _upright_transpose(picture)
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
    except (ImageTooManyPixels, UnreadableImage):
        raise
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
    with open_picture(content) as picture:
        _check_pixel_count(name, picture.size, limits)
        if picture.format == "PNG":
            _check_png_sums(name, content)
        if picture.info.get("progressive"):
            _check_scan_count(name, content, picture.width * picture.height, limits)
        with _one_large_picture if picture.width * picture.height > _LARGE_PIXELS else nullcontext():
            return _scaled_upright(picture, scaled)


def _check_pixel_count(name: str, size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooManyPixels(
            f"{name}: {width} x {height} pixels, the limit is {limits.max_pixels:,} in all; use a smaller image",
            field="image_content",
        )


def _check_png_sums(name: str, content: bytes) -> None:
    """Verify the checksums of the pixel data, which Pillow skips: corruption would go unnoticed."""
    view, position = memoryview(content), 8
    while position < len(content) and (kind := content[position + 4 : position + 8]) != b"IEND":
        end = position + 8 + int.from_bytes(content[position : position + 4], "big")
        if kind == b"IDAT" and zlib.crc32(view[position + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise UnreadableImage(
                f"{name}: PNG checksum mismatch, the pixel data is corrupt: restore the file, or save it again",
                field="image_content",
            )
        position = end + 4


def _check_scan_count(name: str, content: bytes, pixels: int, limits: ImageLimits) -> None:
    allowed = _MAX_SCANS_AT_MOST_PIXELS * limits.max_pixels // pixels
    position = scans = 0
    while scans <= allowed and (marker := _JPEG_MARKER.search(content, position)):
        position, kind = marker.end(), content[marker.end() - 1]
        if kind == _END_OF_IMAGE:
            return
        if kind != _START_OF_IMAGE:  # all other markers between scans have a length field and a payload to skip
            position += max(2, int.from_bytes(content[position : position + 2], "big"))
        scans += kind == _START_OF_SCAN
    if scans > allowed:
        raise UnreadableImage(
            f"{name}: a progressive JPEG with more than {allowed:,} scans takes minutes to decode; save it again",
            field="image_content",
        )


def _scaled_upright(picture: Image.Image, scaled: Scaled | None) -> DecodedImage:
    mime_type = _MIME_TYPES[picture.format or ""]
    transpose = _upright_transpose(picture)
    size = picture.size
    if scaled is not None:
        # JPEG can be decoded at 1/2, 1/4 or 1/8 scale; twice the final size is enough for the antialiased resize.
        width, height = scaled(*size)
        picture.draft("RGB", (2 * width, 2 * height))
    upright = _to_rgb(picture)
    if transpose is not None:
        upright = upright.transpose(transpose)
        size = size[::-1] if transpose in _SWAPPING else size
    if scaled is not None:
        upright = upright.resize(scaled(*size), Image.Resampling.BILINEAR)
    return DecodedImage(np.asarray(upright), *size, mime_type)


def _upright_transpose(picture: Image.Image) -> Image.Transpose | None:
    """Return the transpose that makes the image upright; Pillow applies a TIFF's orientation when it loads it."""
    return None if picture.format == "TIFF" else _TRANSPOSES.get(_orientation(picture))


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) if the block is absent or corrupt: the pixels are still valid."""
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF parser raises many types
        return 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    picture.load()
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    width, height = picture.size
    converted = Image.new("RGB", picture.size)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        converted.paste(_strip_to_rgb(strip), (0, top))
    return converted


def _strip_to_rgb(strip: Image.Image) -> Image.Image:
    if strip.mode.startswith("I"):  # 16-bit gray: keep the high byte; Pillow's conversion clips at 255
        values = np.asarray(strip).clip(0, 0xFFFF).astype(np.uint16)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if strip.mode == "F":
        raise ValueError("floating-point pixels have no standard range")
    if strip.has_transparency_data:
        colored = strip.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colored.size, "white"), colored).convert("RGB")
    return strip.convert("RGB")
