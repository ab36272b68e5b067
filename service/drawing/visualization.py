"""Draw the visualization of a factor: the photograph, its heatmap, the generated image, patches."""

import numpy as np
from PIL import Image, ImageOps

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.features.nmf import restore
from whatwhere.service.drawing.defaults import OPACITY
from whatwhere.service.drawing.tiles import COLUMNS, TILE_SIZE, Tile, draw_tiles, load_pixels
from whatwhere.service.search.heatmaps import color_of, laid_over, layer_of
from whatwhere.service.search.visualization import Patch, Pixels, Visualization

_MARGIN = 0.15  # around a patch, as a fraction of its sides


def draw_visualization(visualization: Visualization) -> Image.Image:
    """Draw the photograph, the factor's heatmap and the generated image; below, patches, four to a row."""
    color = color_of(visualization.factor)
    factor = f"factor {visualization.factor}"
    boxes = () if visualization.box is None else (visualization.box,)
    photograph = Tile(visualization.source.pixels, visualization.source.name, "the photograph", boxes, color)
    heatmap = Tile(_under_heatmap(visualization, color), factor, "heatmap", color=color, swatch=True)
    picture = Tile(visualization.picture, "generated image", f"by gradient ascent, cosine {visualization.cosine:.2f}")
    patches = [_patch_tile(position, patch) for position, patch in enumerate(visualization.patches, start=1)]
    below = [patches[start : start + COLUMNS] for start in range(0, len(patches), COLUMNS)]
    return draw_tiles([[photograph, heatmap, picture], *below])


def _under_heatmap(visualization: Visualization, color: str) -> Pixels | None:
    if visualization.source.pixels is None:
        return None
    photograph = ImageOps.contain(Image.fromarray(visualization.source.pixels), TILE_SIZE)
    factors = visualization.source.description.factors
    heat = restore(factors).where[:, visualization.factor].reshape(factors.height, factors.width)
    layer = layer_of((heat / heat.max()).numpy(), color, photograph.size, OPACITY)
    return laid_over(np.asarray(photograph), layer)


def _patch_tile(position: int, patch: Patch) -> Tile:
    similar = patch.similar
    pixels = load_pixels(patch.image)
    detail = f"{patch.image.name}, factor {similar.factor}, score {similar.score:.3f}"
    return Tile(
        None if pixels is None else _cropped(pixels, similar.box), f"{position}  {patch.image.file_name}", detail
    )


def _cropped(pixels: Pixels, box: Box | None) -> Pixels:
    """Crop to a box with a margin, and scale the crop to a tile."""
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
