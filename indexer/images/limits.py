"""Limits on encoded images. Plain values: importing this needs no image library."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageLimits:
    """What is refused before decoding."""

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 100_000_000
