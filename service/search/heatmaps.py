"""Color heatmaps, and overlay them on photographs; a browser can overlay them as well. Arrays and Pillow only.

A layer is RGBA uint8 [height, width, 4] with alpha 0 at heat 0. The cells of a heatmap tile its image; each value is
at the center of its cell.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

# One color per factor, strongest first. The first seven are Okabe and Ito's (Color Universal Design, 2008) without
# black. The others are from Paul Tol's schemes (SRON/EPS/TN/09-002, 2021: bright, light, muted, pale, dark), each the
# most distant from all before it. Minimum CIEDE2000 distances over normal vision, protanopia, deuteranopia and
# tritanopia (simulated as in Machado et al., 2009): 19 among the first four, 10 among eight, 6.5 among all.
PALETTE = (
    *("#d55e00", "#56b4e9", "#f0e442", "#0072b2", "#009e73", "#cc79a7", "#e69f00"),
    *("#882255", "#ccddaa", "#225522", "#99ddff", "#ffaabb", "#ee6677", "#aa3377", "#666633", "#aa4499"),
)
_NEGATIVE, _POSITIVE = "#0072b2", "#d55e00"
_SMALLEST = np.float32(1e-12)


def color_of(index: int) -> str:
    """Return the color of a factor, #rrggbb; colors repeat after 16 factors."""
    return PALETTE[index % len(PALETTE)]


def upsampled(heat: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Scale a heatmap [h, w] to [height, width] bilinearly; the border repeats the outermost values."""
    return np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR))


def layer_of(heat: NDArray[np.float32], color: str, size: tuple[int, int], opacity: float = 1.0) -> NDArray[np.uint8]:
    """Return a heatmap [h, w] in [0, 1] as a layer of `size` (width, height): alpha is heat times opacity."""
    return _layer(np.array(ImageColor.getrgb(color)), upsampled(heat, *size) * opacity)


def blended_layer(
    heats: Sequence[NDArray[np.float32]], colors: Sequence[str], size: tuple[int, int], opacity: float = 1.0
) -> NDArray[np.uint8]:
    """Return several heatmaps as one layer: each pixel has the color of its maximum, with alpha heat times opacity."""
    heat = np.stack([upsampled(heat, *size) for heat in heats])
    color = np.array([ImageColor.getrgb(color) for color in colors])
    return _layer(color[heat.argmax(axis=0)], heat.max(axis=0) * opacity)


def signed_layer(values: NDArray[np.float32], size: tuple[int, int], opacity: float = 1.0) -> NDArray[np.uint8]:
    """Return signed values [h, w] as a layer: vermilion above zero, blue below, alpha relative to the largest value."""
    scaled = upsampled(values / np.maximum(np.abs(values).max(), _SMALLEST), *size)
    color = np.where(scaled[..., np.newaxis] > 0, ImageColor.getrgb(_POSITIVE), ImageColor.getrgb(_NEGATIVE))
    return _layer(color, np.abs(scaled) * opacity)


def principal_colors(maps: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return three signed maps [h, w, 3] as red, green and blue uint8 [height, width, 3], each scaled to its range."""
    low, high = maps.min(axis=(0, 1)), maps.max(axis=(0, 1))
    scaled = (maps - low) / np.maximum(high - low, _SMALLEST)
    return _in_bytes(np.stack([upsampled(channel, *size) for channel in np.moveaxis(scaled, 2, 0)], axis=2))


def laid_over(photograph: NDArray[np.uint8], layer: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Overlay a layer on a photograph [height, width, 3] of equal size, which is converted to gray."""
    gray = Image.fromarray(photograph).convert("L").convert("RGBA")
    return np.asarray(Image.alpha_composite(gray, Image.fromarray(layer)).convert("RGB"))


def heatmap_png(heat: NDArray[np.float32], color: str, size_px: int, aspect: float) -> bytes:
    """Return a heatmap [h, w] in [0, 1] as an RGBA PNG of one color (#rrggbb) with the heat as alpha.

    `size_px` is the longer side in pixels, `aspect` the width of the upright image divided by its height.
    """
    width, height = (max(1, round(size_px * side)) for side in (min(1.0, aspect), min(1.0, 1 / aspect)))
    written = io.BytesIO()
    Image.fromarray(layer_of(heat, color, (width, height))).save(written, "PNG")
    return written.getvalue()


def _layer(color: NDArray[np.integer], alpha: NDArray[np.floating]) -> NDArray[np.uint8]:
    layer = np.empty((*alpha.shape, 4), np.uint8)
    layer[..., :3] = color
    layer[..., 3] = _in_bytes(alpha)
    return layer


def _in_bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Scale [0, 1] to [0, 255]."""
    scaled: NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return scaled
