"""Open JPEG XL pictures with libjxl (imagecodecs)."""

from typing import Any

import numpy as np
from PIL import Image

from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.images.color_codes import LINEAR, SRGB, to_srgb
from whatwhere.indexer.images.formats.iso_boxes import boxes
from whatwhere.indexer.images.formats.jpegxl_header import CODESTREAM, CONTAINER, Header, read_header
from whatwhere.indexer.images.formats.lazy import LazyPicture

_MAX_EXTRA_CHANNELS = 4  # each costs as much memory as a gray picture; the format allows 4,096
_MAX_EXIF_BYTES = 1 << 20  # after decompression


def is_jpegxl(content: bytes) -> bool:
    """Tell by the first bytes whether a file is JPEG XL."""
    return content.startswith((CONTAINER, CODESTREAM))


def open_jpegxl(content: bytes) -> Image.Image:
    """Read the header; `load()` decodes the first frame, upright, in sRGB.

    Raises UnreadableImage if the header is damaged, the picture is CMYK, or imagecodecs is not installed.
    """
    try:
        header = read_header(content)
    except ValueError as error:
        raise UnreadableImage(f"JPEG XL with a damaged header, {error}; restore the file") from error
    if header.has_black:
        raise UnreadableImage("JPEG XL in CMYK is not supported; save it as RGB")
    if len(header.extra_channels) > _MAX_EXTRA_CHANNELS:
        raise UnreadableImage(
            f"JPEG XL with {len(header.extra_channels)} extra channels, the limit is {_MAX_EXTRA_CHANNELS}; "
            "save it with alpha only"
        )
    _codec()  # before anything is decoded
    exif = exif_bytes(content)
    return LazyPicture(
        "JPEG XL",
        (header.width, header.height),
        lambda: _decoded(content, header),
        info={"exif": exif} if exif else {},
    )


def exif_bytes(content: bytes) -> bytes:
    """Return the EXIF block of a container, from its TIFF header on, b"" if there is none.

    A compressed box (`brob`) needs imagecodecs, and is skipped above 1 MiB.
    """
    if not content.startswith(CONTAINER):
        return b""
    for box in boxes(content, len(CONTAINER)):
        payload = content[box.start : box.end]
        if box.kind == b"brob" and payload[:4] == b"Exif":
            payload = _decompressed(payload[4:])
        elif box.kind != b"Exif":
            continue
        return payload[4 + int.from_bytes(payload[:4], "big") :]  # where the TIFF header is
    return b""


def _decompressed(payload: bytes) -> bytes:
    try:
        return bytes(_codec().brotli_decode(payload, out=bytearray(_MAX_EXIF_BYTES)))
    except RuntimeError:  # damaged, or too large: metadata never costs a picture
        return b""


def _codec() -> Any:
    try:
        import imagecodecs  # noqa: PLC0415 - only for the pictures that need it
    except ImportError as error:
        raise UnreadableImage("JPEG XL needs imagecodecs: pip install 'whatwhere[formats]'") from error
    return imagecodecs


def _decoded(content: bytes, header: Header) -> Image.Image:
    pixels = _codec().jpegxl_decode(content, index=0, numthreads=1)
    transfer = header.transfer
    if pixels.dtype.kind == "f":
        pixels = np.rint(pixels.clip(0, 1) * 255)
    elif transfer == LINEAR:  # imagecodecs writes so whatever 16-bit integers mean; light itself comes as float
        transfer = SRGB
    if pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint32) * 255 + (1 << (header.bits - 1))) // ((1 << header.bits) - 1)
    pixels = pixels.astype(np.uint8)
    if header.is_premultiplied:  # over white already here: Pillow has no gray mode for it
        pixels = pixels[..., :-1] + (255 - pixels[..., -1:])
        pixels = pixels[..., 0] if header.is_gray else pixels
    return to_srgb(Image.fromarray(pixels), header.primaries, transfer)
