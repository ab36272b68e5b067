"""Encoded bytes → upright RGB pixels at the size the network sees, within limits.

Read: JPEG, PNG, WebP, GIF and TIFF (first frame or page), BMP; bilevel, grey, palette, RGB, alpha (over white), CMYK,
16-bit grey. EXIF orientation is applied. ICC profiles are ignored: the numbers in the file are taken as sRGB.

`ImageLimits` decides which pictures are too large. Pillow's own limit for the process, `PIL.Image.MAX_IMAGE_PIXELS`, is
neither changed nor asked when a picture is opened. A few of Pillow's decoders ask it later: if the host program has set
it lower, they may refuse the picture, as `ImageTooManyPixels`.
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

Pixels: TypeAlias = NDArray[np.uint8]
Scaled: TypeAlias = Callable[[int, int], tuple[int, int]]  # (width, height) → those that a picture is scaled to

SHORTER_SIDE = 512
# No image costs more than three ordinary ones (4:3, 512 x 683): the longer side stops growing at aspect 4.
MAX_ASPECT = 4
# Sides are rounded to the coarsest grid cell, so that the cells tile the picture exactly and shapes are few.
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
_MAGIC_BYTES = 16  # what Pillow tells a format by
# EXIF orientation → what turns the stored rows upright. Not ImageOps.exif_transpose: that also rewrites the EXIF
# block and fails on torn ones whose picture is fine.
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
# A decoder holds up to 20 bytes a pixel (WebP), 2 GB at the limit. Pictures above this are decoded one after the other,
# so that memory does not grow with the number of threads.
_LARGE_PIXELS = 16_000_000
_one_large_picture = threading.Lock()
_STRIP_PIXELS = 4_000_000  # converted at a time, so that copies in between stay small
# Each scan of a progressive JPEG passes over the whole picture, 0.1 s for 100 million pixels, and takes no more than a
# hundred bytes: a file within the limit of bytes could keep a thread for hours. Encoders write about 10 scans.
_MAX_SCANS_AT_MOST_PIXELS = 32
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not a stuffed byte, a restart or a fill byte


@dataclass(frozen=True)
class ImageLimits:
    """What is refused before decoding."""

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 100_000_000


@dataclass(frozen=True)
class DecodedImage:
    """An upright picture scaled for the network: `pixels` uint8 [h, w, 3]; `width` and `height` are the original's."""

    pixels: Pixels
    width: int
    height: int
    mime_type: str


def check_byte_count(name: str, byte_count: int, limits: ImageLimits) -> None:
    """Raise ImageTooManyBytes above the limit."""
    if byte_count > limits.max_bytes:
        raise ImageTooManyBytes(
            f"{name}: {byte_count:,} bytes, the limit is {limits.max_bytes:,}; send a smaller or more compressed image",
            field="image_content",
        )


def fitted_size(width: int, height: int, shorter_side: int = SHORTER_SIDE) -> tuple[int, int]:
    """Return (width, height), multiples of 32: the shorter near `shorter_side`, the longer at most 4 times that."""
    scale = min(shorter_side / min(width, height), shorter_side * MAX_ASPECT / max(width, height))
    fitted = (max(1, round(side * scale / SIDE_MULTIPLE)) * SIDE_MULTIPLE for side in (width, height))
    return next(fitted), next(fitted)


def size_within(width: int, height: int, longer_side: int) -> tuple[int, int]:
    """Return (width, height) in the same proportions, the longer at most `longer_side`; never larger than before."""
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
    """Return (width, height) of the upright picture from its header alone; UnreadableImage where there is none."""
    try:
        with open_picture(content) as picture:
            transpose = _upright_transpose(picture)
            return picture.size[::-1] if transpose in _SWAPPING else picture.size
    except Exception as error:  # as in decode_image
        raise UnreadableImage(f"{name}: not a JPEG, PNG, WebP, GIF, TIFF or BMP image") from error


def decode_image(
    content: bytes, name: str, *, limits: ImageLimits | None = None, shorter_side: int | None = SHORTER_SIDE
) -> DecodedImage:
    """Decode `content`, turn it upright and scale it (antialiased, bilinear) to `fitted_size`; None keeps its size.

    `name` stands in the messages. Raises ImageTooManyBytes and ImageTooManyPixels before decoding, UnreadableImage
    when decoding fails.
    """
    scaled = None if shorter_side is None else partial(fitted_size, shorter_side=shorter_side)
    return _decoded(content, name, limits or ImageLimits(), scaled)


def decode_within(content: bytes, name: str, longer_side: int, *, limits: ImageLimits | None = None) -> DecodedImage:
    """Decode `content`, turn it upright and scale it to `size_within`; else as `decode_image`."""
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
    except Exception as error:  # decoders of foreign bytes raise anything: OSError, ValueError, struct.error, ...
        raise UnreadableImage(
            f"{name}: not a complete JPEG, PNG, WebP, GIF, TIFF or BMP image; save it again as one of these",
            field="image_content",
        ) from error.with_traceback(None)  # its frames hold the pixels for as long as somebody keeps the error


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
            f"{name}: {width} x {height} pixels, the limit is {limits.max_pixels:,} in all; send a smaller image",
            field="image_content",
        )


def _check_png_sums(name: str, content: bytes) -> None:
    """Compare the checksums of the pixels, which Pillow passes over: damage would become another picture."""
    view, position = memoryview(content), 8
    while position < len(content) and (kind := content[position + 4 : position + 8]) != b"IEND":
        end = position + 8 + int.from_bytes(content[position : position + 4], "big")
        if kind == b"IDAT" and zlib.crc32(view[position + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise UnreadableImage(
                f"{name}: the pixels are not those of the PNG's checksum: restore the file, or save it again",
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
        if kind != _START_OF_IMAGE:  # all others that stand between scans have a length, and bytes that must be passed
            position += max(2, int.from_bytes(content[position : position + 2], "big"))
        scans += kind == _START_OF_SCAN
    if scans > allowed:
        raise UnreadableImage(
            f"{name}: a progressive JPEG of more than {allowed:,} scans, which takes minutes to decode; save it again",
            field="image_content",
        )


def _scaled_upright(picture: Image.Image, scaled: Scaled | None) -> DecodedImage:
    mime_type = _MIME_TYPES[picture.format or ""]
    transpose = _upright_transpose(picture)
    size = picture.size
    if scaled is not None:
        # JPEG can decode at 1/2, 1/4 or 1/8; at twice the final size the antialiased resize still sees it all.
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
    """Return what turns the stored rows upright; Pillow turns TIFFs itself when it loads them."""
    return None if picture.format == "TIFF" else _TRANSPOSES.get(_orientation(picture))


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) where the block is absent or torn: the pixels are still good."""
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a foreign block again; Pillow's parser raises many types
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
    if strip.mode.startswith("I"):  # 16-bit grey: keep the high byte; Pillow's own conversion clips at 255
        values = np.asarray(strip).clip(0, 0xFFFF).astype(np.uint16)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if strip.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if strip.has_transparency_data:
        colored = strip.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colored.size, "white"), colored).convert("RGB")
    return strip.convert("RGB")
