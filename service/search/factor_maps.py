"""Heatmaps of an image's factors, and of the factors that several images share, by joint factorization.

Joint factorization stacks the cells of all images into one matrix, so that one row of V (one factor) has a heatmap on
each image (deep feature factorization; Collins et al., 2018). On iCoseg's elephants and gymnastics, the same part has
the same factor in all images by visual inspection, both from activations and from stored factors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.features import pooling
from whatwhere.indexer.features.description import QuantizedFactors
from whatwhere.indexer.features.nmf import Dense, LowRank, Matrices, factorize_batch, restore
from whatwhere.service.search.localize import block_diagonal, box_of_maps

# Share of an image's energy below which a joint factor is absent. On images without the factor a residue remains: at
# most 0.9 % in most cases, measured at ranks 5 to 12 on elephants, gymnasts and both. A visible factor has more.
LIVING_SHARE = 0.01


@dataclass(frozen=True)
class FactorMap:
    """One factor on one image: `index` is the row of V, 0 the strongest of its factorization.

    `heat` float32 [h, w] in [0, 1] is the heatmap divided by its maximum on this image. A dead factor, absent from the
    image, has all zeros and no box. `energy_share` is the factor's (‖U_k‖₂·‖V_k‖₂)², U_k restricted to this image,
    divided by the sum over its living factors. `box` bounds the largest connected part of the most activated cells.
    """

    index: int
    heat: NDArray[np.float32]
    energy_share: float
    box: Box | None


def factor_maps(factors: QuantizedFactors) -> tuple[FactorMap, ...]:
    """Return the K stored factors of one image."""
    restored = restore(factors)
    return _maps(restored.where, restored.what, (factors.height, factors.width), living_share=0)


def compare_stored(images: Sequence[QuantizedFactors], rank: int) -> list[tuple[FactorMap, ...]]:
    """Factorize images jointly from their stored factors.

    Returns `rank` maps for each image; an index is the same factor in all images. A factor with less than LIVING_SHARE
    of an image's energy is dead on it.
    """
    restored = [restore(image) for image in images]
    where = block_diagonal(*(factors.where for factors in restored))
    what = torch.cat([factors.what for factors in restored])
    grids = [(image.height, image.width) for image in images]
    return _compare(LowRank(where.unsqueeze(0), what.unsqueeze(0)), rank, grids)


def compare_exact(grids: Sequence[Tensor], rank: int) -> list[tuple[FactorMap, ...]]:
    """Factorize images jointly from their activations [h, w, C]; returns as `compare_stored`.

    CroW's channel weights are computed from all cells together: with weights per image, one factor would need a
    different row of V for each image. By visual inspection, both give nearly the same heatmaps.
    """
    cells = torch.cat([grid.flatten(0, 1) for grid in grids]).cpu()
    weighted = cells * pooling.crow_channel_weights(cells.unsqueeze(1))
    return _compare(Dense(weighted.unsqueeze(0)), rank, [(grid.shape[0], grid.shape[1]) for grid in grids])


def _compare(stacked: Matrices, rank: int, grids: Sequence[tuple[int, int]]) -> list[tuple[FactorMap, ...]]:
    """Factorize the stacked cells of all images, and split the heatmaps by image."""
    (where,), (what,) = factorize_batch(stacked, rank)
    parts = where.split([height * width for height, width in grids])
    return [_maps(part, what, grid, LIVING_SHARE) for part, grid in zip(parts, grids, strict=True)]


def _maps(where: Tensor, what: Tensor, grid: tuple[int, int], living_share: float) -> tuple[FactorMap, ...]:
    """Split U [h·w, K] and V [K, C] into factors; factors below `living_share` of the energy are dead."""
    energy = (where.norm(dim=0) * what.norm(dim=1)).square()
    living = energy * (energy >= living_share * energy.sum())
    shares = living / living.sum().clamp_min(torch.finfo(energy.dtype).tiny)
    heat = (where * (living > 0) / where.amax(dim=0).clamp_min(torch.finfo(where.dtype).tiny)).mT.reshape(-1, *grid)
    return tuple(
        FactorMap(index, heatmap.numpy(), share, box_of_maps(heatmap.unsqueeze(0)))
        for index, (heatmap, share) in enumerate(zip(heat, shares.tolist(), strict=True))
    )
