"""Localize the match: factorize query and result jointly, keep the factors of the query, and box their heatmaps.

Mean IoU in percent on the 16 ordered pairs of official query boxes in a subset of Paris6k: whole image 33; stored
factors of rank 8 with 6 joint factors 54; new activations at a shorter side of 224 with 4 joint factors 59. Other
ranks, blurs and thresholds changed either value by less than the noise of 16 pairs.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.features import pooling
from whatwhere.indexer.features.description import QuantizedFactors
from whatwhere.indexer.features.nmf import Dense, LowRank, Matrices, factorize_batch, restore
from whatwhere.indexer.features.regions import Region, coverage

STORED_RANK = 6
EXACT_RANK = 4
SWEEPS = 20  # measured: more sweeps change boxes by no more than the noise
EXACT_SHORTER_SIDE = 224  # of images for new activations
KEPT_SHARE = 0.3  # of the cells, the most activated ones
UPSAMPLING = 8


def localize_stored(
    query: QuantizedFactors,
    region: Region | None,
    results: Sequence[QuantizedFactors],
    chosen_factors: Collection[int] | None = None,
) -> list[Box | None]:
    """Return the box of the match on each result, from stored factors; None if nothing of the query is found.

    `region` restricts the query to its inside, and `chosen_factors` to these of its factors; None means all.
    """
    left, right = restore(query), [restore(result) for result in results]
    own, inside = left.where, coverage(region, query.height, query.width).flatten()
    if chosen_factors is not None:
        # Split the query into two images, the chosen factors and the rest; joint factors inside the first are kept.
        chosen = torch.tensor([index in chosen_factors for index in range(own.shape[1])])
        own, inside = torch.cat([own * chosen, own * ~chosen]), torch.cat([inside, torch.zeros_like(inside)])
    # A pair is block-diagonal: each image's heatmaps multiply only its own factors.
    where = pad_sequence([block_diagonal(own, factors.where) for factors in right], batch_first=True)
    what = torch.stack([torch.cat([left.what, factors.what]) for factors in right])
    grids = [(result.height, result.width) for result in results]
    return _boxes(LowRank(where, what), STORED_RANK, inside, grids)


def localize_exact(query: Tensor, region: Region | None, results: Sequence[Tensor]) -> list[Box | None]:
    """Return the box of the match on each result, from activations [h, w, C]; None if nothing of the query is found."""
    left, *right = ((grid * pooling.crow_channel_weights(grid)).flatten(0, 1).cpu() for grid in (query, *results))
    pairs = pad_sequence([torch.cat([left, weighted]) for weighted in right], batch_first=True)
    grids = [(result.shape[0], result.shape[1]) for result in results]
    inside = coverage(region, query.shape[0], query.shape[1]).flatten()
    return _boxes(Dense(pairs), EXACT_RANK, inside, grids)


def block_diagonal(*blocks: Tensor) -> Tensor:
    """Return the block-diagonal matrix of heatmaps [P, K], so that each image's multiply only its own factors."""
    joined: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call] # torch leaves it untyped
    return joined


def _boxes(pairs: Matrices, rank: int, inside: Tensor, grids: Sequence[tuple[int, int]]) -> list[Box | None]:
    """Box each result's part of the joint factors inside the query's region; `inside` is [P] over query cells."""
    where, _ = factorize_batch(pairs, rank, SWEEPS)
    boxes = []
    for maps, (height, width) in zip(where, grids, strict=True):
        kept, _ = pooling.select_inside(pooling.mass_inside(maps[: len(inside)], inside))
        own = maps[len(inside) : len(inside) + height * width, kept]
        boxes.append(box_of_maps(own.mT.reshape(-1, height, width)))
    return boxes


def box_of_maps(maps: Tensor) -> Box | None:
    """Box the largest connected part of the most activated 30 % of the heatmaps' mean; None if all are zero.

    `maps` is [K, h, w]; each heatmap is scaled to maximum 1 before the mean.
    """
    peaks = maps.amax(dim=(1, 2), keepdim=True)
    mean = (maps / peaks.clamp_min(1e-12)).mean(dim=0)
    if mean.max() <= 0:
        return None
    heat = functional.interpolate(mean[None, None], scale_factor=UPSAMPLING, mode="bilinear")[0, 0].numpy()
    labels, _ = ndimage.label((heat >= np.quantile(heat, 1 - KEPT_SHARE)) & (heat > 0))
    return _box_of_largest(labels)


def _box_of_largest(labels: NDArray[np.signedinteger]) -> Box:
    largest = int(np.bincount(labels.ravel())[1:].argmax()) + 1
    rows, columns = ndimage.find_objects(labels, max_label=largest)[largest - 1]
    height, width = labels.shape
    return Box(columns.start / width, rows.start / height, columns.stop / width, rows.stop / height)
