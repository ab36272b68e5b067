"""Limits on encoded images. Plain values: importing this needs no image library."""

from dataclasses import dataclass

MIB = 1024 * 1024
MEGAPIXEL = 1_000_000


@dataclass(frozen=True)
class ImageLimits:
    """What is refused before decoding; the defaults are those of stored files, and fit today's cameras."""

    max_bytes: int = 512 * MIB
    max_pixels: int = 200 * MEGAPIXEL


UPLOAD_LIMITS = ImageLimits(max_bytes=32 * MIB, max_pixels=100 * MEGAPIXEL)
