"""Flatten pictures of every Pillow mode to plain colors."""

import numpy as np
from PIL import Image

from whatwhere.indexer.images.color import lab_to_rgb
from whatwhere.indexer.images.formats.samples import to_bytes

STRIP_PIXELS = 4_000_000  # converted at a time, so that intermediate copies stay small


def flattened(picture: Image.Image, mode: str = "RGB") -> Image.Image:
    """Load a picture and convert it to `mode` (L, RGB or CMYK); transparency is composited over white."""
    picture.load()
    if picture.mode.startswith("I"):  # 16-bit gray; Pillow's conversion clips at 255
        values = np.asarray(picture).clip(0, 0xFFFF).astype(np.uint16)
        picture = Image.fromarray(to_bytes(values[:, :, np.newaxis], 16)[:, :, 0])
    if picture.mode == mode and not picture.has_transparency_data:
        return picture
    width, height = picture.size
    converted = Image.new(mode, picture.size)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        converted.paste(_opaque(strip).convert(mode), (0, top))
    return converted


def _opaque(strip: Image.Image) -> Image.Image:
    if strip.mode == "F":
        raise ValueError("floating-point pixels have no standard range")
    if strip.mode == "LAB":
        return lab_to_rgb(strip)
    if strip.has_transparency_data:
        colored = strip.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colored.size, "white"), colored).convert("RGB")
    return strip
