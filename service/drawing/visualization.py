"""Draw what a factor looks like: the photograph, its heatmap, the generated picture, patches."""

import numpy as np
from PIL import Image, ImageOps

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.features.nmf import restore
from whatwhere.service.drawing.defaults import OPACITY
from whatwhere.service.drawing.tiles import COLUMNS, TILE_SIZE, Tile, draw_tiles, load_pixels
from whatwhere.service.search.heatmaps import color_of, laid_over, layer_of
from whatwhere.service.search.visualization import Patch, Pixels, Visualization

_MARGIN = 0.15  # around a patch, of its sides


def draw_visualization(shown: Visualization) -> Image.Image:
    """Draw the photograph, the factor's heatmap and what the network sees in it; below, four to a row, patches."""
    color = color_of(shown.factor)
    factor = f"factor {shown.factor}"
    boxes = () if shown.box is None else (shown.box,)
    photograph = Tile(shown.source.pixels, shown.source.name, "the photograph", boxes, color)
    heatmap = Tile(_under_heatmap(shown, color), factor, "where it is", color=color, swatch=True)
    picture = Tile(shown.picture, "what the network sees in it", f"made by gradient ascent, cosine {shown.cosine:.2f}")
    patches = [_patch_tile(rank, patch) for rank, patch in enumerate(shown.patches, start=1)]
    below = [patches[start : start + COLUMNS] for start in range(0, len(patches), COLUMNS)]
    return draw_tiles([[photograph, heatmap, picture], *below])


def _under_heatmap(shown: Visualization, color: str) -> Pixels | None:
    if shown.source.pixels is None:
        return None
    photograph = ImageOps.contain(Image.fromarray(shown.source.pixels), TILE_SIZE)
    factors = shown.source.description.factors
    heat = restore(factors).where[:, shown.factor].reshape(factors.height, factors.width)
    layer = layer_of((heat / heat.max()).numpy(), color, photograph.size, OPACITY)
    return laid_over(np.asarray(photograph), layer)


def _patch_tile(rank: int, patch: Patch) -> Tile:
    similar = patch.similar
    pixels = load_pixels(patch.image)
    detail = f"{patch.image.name}, factor {similar.factor}, score {similar.score:.3f}"
    return Tile(None if pixels is None else _cropped(pixels, similar.box), f"{rank}  {patch.image.file_name}", detail)


def _cropped(pixels: Pixels, box: Box | None) -> Pixels:
    """Cut out what is in a box, with a margin, and scale it to a tile."""
    photograph = Image.fromarray(pixels)
    if box is not None:
        across, down = _MARGIN * (box.x_max - box.x_min), _MARGIN * (box.y_max - box.y_min)
        sides = (box.x_min - across, box.y_min - down, box.x_max + across, box.y_max + down)
        x_min, y_min, x_max, y_max = (min(max(side, 0.0), 1.0) for side in sides)
        width, height = photograph.size
        photograph = photograph.crop(
            (int(x_min * width), int(y_min * height), round(x_max * width), round(y_max * height))
        )
    return np.asarray(ImageOps.contain(photograph, TILE_SIZE))
