"""Compute the coverage of grid cells by image regions of any shape."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.indexer.boxes import WHOLE_IMAGE, Box

_EPS = 1e-6


@dataclass(frozen=True)
class Area:
    """The union of boxes and a mask uint8 [h, w], 255 inside, stretched over the image."""

    boxes: tuple[Box, ...] = ()
    mask: NDArray[np.uint8] | None = None


Region: TypeAlias = Box | Area


def coverage(region: Region | None, height: int, width: int) -> Tensor:
    """Return the fraction of each cell inside the region, float32 [height, width]; 1 without a region."""
    if region is None:
        return torch.ones(height, width)
    area = region if isinstance(region, Area) else Area((region,))
    covered = np.zeros((height, width))
    if area.boxes:
        covered = _covered_by_boxes(area.boxes, height, width)
    if area.mask is not None:
        covered = np.maximum(covered, _covered_by_mask(area.mask, height, width))
    return torch.from_numpy(covered.astype(np.float32))


def _covered_by_boxes(boxes: tuple[Box, ...], height: int, width: int) -> NDArray[np.float64]:
    """Compute the coverage by a union of boxes, cut at every side into pieces that are inside or outside."""
    x_sides = sorted({side for box in boxes for side in (box.x_min, box.x_max)})
    y_sides = sorted({side for box in boxes for side in (box.y_min, box.y_max)})
    inside = [
        [any(box.x_min <= x < box.x_max and box.y_min <= y < box.y_max for box in boxes) for x in x_sides[:-1]]
        for y in y_sides[:-1]
    ]
    return _spread(np.array(inside), (np.array(y_sides), np.array(x_sides)), height, width)


def _covered_by_mask(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    # Not Pillow's box filter: it assigns a pixel shared by two cells to one of them.
    rows, columns = mask.shape
    return _spread(mask / 255, (np.linspace(0, 1, rows + 1), np.linspace(0, 1, columns + 1)), height, width)


def _spread(
    pieces: NDArray[Any], sides: tuple[NDArray[np.float64], NDArray[np.float64]], height: int, width: int
) -> NDArray[np.float64]:
    """Resample pieces [M, N], bounded by M + 1 and N + 1 sides, to cells [height, width] by area."""
    rows, columns = (_covered(cells, each) for cells, each in zip((height, width), sides, strict=True))
    return np.asarray((rows.T @ pieces @ columns).clip(0, 1))


def _covered(cells: int, sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the fraction of each of `cells` equal cells of [0, 1] between consecutive sides: [len - 1, cells]."""
    edges = np.arange(cells + 1) / cells
    high, low = np.minimum(edges[1:], sides[1:, None]), np.maximum(edges[:-1], sides[:-1, None])
    return np.asarray((high - low).clip(0) * cells)


def cells_touching(grid: Tensor, region: Region) -> Tensor:
    """Return the bounding rectangle of the cells of a grid [H, W, C] that a region touches, at least one cell.

    Cells that the region does not touch are zero; a region that touches none gives the whole grid.
    """
    height, width, _ = grid.shape
    if isinstance(region, Box):
        return grid[_cells(height, region.y_min, region.y_max), _cells(width, region.x_min, region.x_max)]
    touched = torch.zeros(height, width, dtype=torch.bool)
    for box in region.boxes:
        touched[_cells(height, box.y_min, box.y_max), _cells(width, box.x_min, box.x_max)] = True
    if region.mask is not None:
        touched |= coverage(Area(mask=region.mask), height, width) > _EPS
    if not touched.any():
        return cells_touching(grid, WHOLE_IMAGE)
    rows, columns = touched.any(dim=1).nonzero().flatten(), touched.any(dim=0).nonzero().flatten()
    frame = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return grid[frame] * touched[frame].unsqueeze(2).to(grid)


def _cells(count: int, low: float, high: float) -> slice:
    """Return the slice of `count` equal cells of [0, 1] that [low, high] touches, at least one.

    An edge on a cell's border, up to rounding, does not touch the next cell.
    """
    first = min(int(low * count + _EPS), count - 1)
    return slice(first, max(int(np.ceil(high * count - _EPS)), first + 1))
