"""Convert pictures of every Pillow mode to RGB."""

import numpy as np
from PIL import Image

STRIP_PIXELS = 4_000_000  # converted at a time, so that intermediate copies stay small


def to_rgb(picture: Image.Image) -> Image.Image:
    """Load a picture and convert it to RGB; transparency is composited over white."""
    picture.load()
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    width, height = picture.size
    converted = Image.new("RGB", picture.size)
    rows = max(1, STRIP_PIXELS // width)
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
