"""Pool activations or factors to local descriptors (rows).

Every descriptor is a function to rows [R, C]. A global descriptor is always the same sum over its rows (whitening is
in `whatwhere.indexer.features.whitening`): l2-normalize rows → whiten → sum → l2-normalize.

Equations 5.4 to 5.7 are from the thesis that the method follows; the baselines are from their papers.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

KERNEL_SIDE = 13
KERNEL_VARIANCE = 2.0
REGION_MASS = 0.75  # minimum fraction of a heatmap's mass inside the region
RMAC_LEVELS = 3
CENTER_DEVIATION = 0.25  # of the image's sides
CELLS = 40
GEM_POWER = 3.0
_EPS = 1e-6


# --- CroW weights -----------------------------------------------------------------------------------------------


def crow_channel_weights(activations: Tensor) -> Tensor:
    """Weight channels [H, W, C] → [C] by rarity, log(Σ Q / Q_c), Q_c the share of positive cells; 0 if dead (5.4)."""
    share = activations.sign().mean(dim=(0, 1))  # activations are non-negative
    return torch.where(share > 0, torch.log(share.sum() / share.clamp_min(_EPS)), 0.0)


def crow_spatial_weights(activations: Tensor) -> Tensor:
    """Weight cells [H, W, C] → [H, W] by their summed activation, √(S / ‖S‖₂) (Kalantidis et al., 2016)."""
    total = activations.sum(dim=2)
    return torch.sqrt(total / total.norm().clamp_min(_EPS))


# --- rows of the baselines: activations [H, W, C] → [R, C] --------------------------------------------------------


def mac_rows(activations: Tensor) -> Tensor:
    """Compute the maximum of each channel, [1, C] (Tolias et al., 2016)."""
    return activations.amax(dim=(0, 1)).unsqueeze(0)


def gem_rows(activations: Tensor, power: float = GEM_POWER) -> Tensor:
    """Compute the generalized mean of each channel, [1, C] (Radenović et al., 2018)."""
    return activations.clamp_min(_EPS).pow(power).mean(dim=(0, 1)).pow(1 / power).unsqueeze(0)


def crow_rows(activations: Tensor) -> Tensor:
    """Sum over cells with CroW's spatial and channel weights, [1, C] (Kalantidis et al., 2016)."""
    summed = torch.einsum("hwc,hw->c", activations, crow_spatial_weights(activations))
    return (summed * crow_channel_weights(activations)).unsqueeze(0)


def rmac_rows(activations: Tensor, levels: int = RMAC_LEVELS) -> Tensor:
    """Compute maxima of the image and of overlapping squares, l2-normalized, [1 + R, C] (Tolias et al., 2016)."""
    height, width, _ = activations.shape
    maxima = [activations.amax(dim=0).amax(dim=0)]
    bands: dict[tuple[int, int], Tensor] = {}  # adjacent squares share the maxima of their rows: 20 times as fast
    for top, left, side in rmac_regions(height, width, levels):
        if (top, side) not in bands:
            bands[top, side] = activations[top : top + side].amax(dim=0)
        maxima.append(bands[top, side][left : left + side].amax(dim=0))
    return functional.normalize(torch.stack(maxima), dim=1, eps=_EPS)


def cell_rows(activations: Tensor, count: int = CELLS) -> Tensor:
    """Return `count` cells, evenly spaced in reading order, with CroW's channel weights: [count, C]."""
    cells = (activations * crow_channel_weights(activations)).flatten(0, 1)
    return cells[torch.linspace(0, len(cells) - 1, count).long()]


def rmac_regions(height: int, width: int, levels: int = RMAC_LEVELS) -> list[tuple[int, int, int]]:
    """Return (top, left, side) of R-MAC's squares: level l has l on the shorter side, overlapping by about 40 %."""
    shorter, longer = min(height, width), max(height, width)
    extra = 0
    if longer > shorter:
        # the number of squares on the longer side that brings the overlap of neighbors closest to 40 %
        overlaps = [abs(1 - (longer - shorter) / (count - 1) / shorter - 0.4) for count in range(2, 8)]
        extra = 1 + overlaps.index(min(overlaps))
    regions = []
    for level in range(1, levels + 1):
        side = 2 * shorter // (level + 1)
        if side > 0:
            tops = _evenly_spaced(height - side, level + extra * (height > width))
            lefts = _evenly_spaced(width - side, level + extra * (width > height))
            regions += [(top, left, side) for top in tops for left in lefts]
    return regions


def _evenly_spaced(last: int, count: int) -> list[int]:
    return [index * last // max(count - 1, 1) for index in range(count)]


# --- rows of the factors ----------------------------------------------------------------------------------------


def interact(where: Tensor, what: Tensor, height: int, width: int) -> Tensor:
    """Mix the descriptor rows of overlapping factors: V' = U'ᵀ U' V, U [H·W, K], V [K, C] → [K, C] (5.5 to 5.7).

    U' is U blurred by a 13 x 13 Gaussian of variance 2 with zero padding, each heatmap then normalized to length 1.
    """
    maps = where.mT.reshape(-1, 1, height, width)
    offsets = torch.arange(KERNEL_SIDE, dtype=where.dtype, device=where.device) - KERNEL_SIDE // 2
    profile = torch.exp(-offsets.square() / (2 * KERNEL_VARIANCE))
    profile = profile / profile.sum()
    half = KERNEL_SIDE // 2
    maps = functional.conv2d(maps, profile.reshape(1, 1, -1, 1), padding=(half, 0))
    maps = functional.conv2d(maps, profile.reshape(1, 1, 1, -1), padding=(0, half))
    blurred = functional.normalize(maps.flatten(1), dim=1, eps=_EPS)  # U'ᵀ [K, H·W]
    return (blurred @ blurred.mT) @ what


@lru_cache  # there are few grid sizes
def center_prior(height: int, width: int) -> Tensor:
    """Weight cells [H·W] by a Gaussian with peak 1 at the image center (Babenko and Lempitsky, 2015)."""
    sides = [((torch.arange(count) + 0.5) / count - 0.5).square() for count in (height, width)]
    return torch.exp(-(sides[0].unsqueeze(1) + sides[1]) / (2 * CENTER_DEVIATION**2)).flatten()


def factor_weights(where: Tensor, what: Tensor, height: int, width: int) -> Tensor:
    """Weight factors, U [H·W, K], V [K, C] → [K] in [0, 1]: energy relative to the strongest, times centrality.

    Centrality is the mean of `center_prior` under the heatmap. Ours, measured on four query sets: both together add 1
    to 7 points of mAP to the sum of V's rows. R-MAC, whose overlapping squares count the center several times, then no
    longer leads.
    """
    energy = where.norm(dim=0) * what.norm(dim=1)
    centrality = center_prior(height, width) @ where / where.sum(dim=0).clamp_min(_EPS)
    weights: Tensor = energy / energy.max().clamp_min(_EPS) * centrality
    return weights


# --- regions ----------------------------------------------------------------------------------------------------


def mass_inside(where: Tensor, inside: Tensor) -> Tensor:
    """Compute the fraction of each heatmap's mass inside a region, U [P, K] → [K] in [0, 1]; 0 for an empty heatmap.

    `inside` [P] is the fraction of each cell inside the region.
    """
    return inside.to(where) @ where / where.sum(dim=0).clamp_min(_EPS)


def squares_inside(inside: Tensor, levels: int = RMAC_LEVELS) -> Tensor:
    """Compute the fraction of each window of `rmac_rows` inside a region, the whole image first, [1 + R] in [0, 1].

    `inside` [H, W] is the fraction of each cell inside the region.
    """
    height, width = inside.shape
    sums = functional.pad(inside.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    top, left, side = torch.tensor(rmac_regions(height, width, levels)).reshape(-1, 3).unbind(1)
    bottom, right = top + side, left + side
    squares = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return torch.cat([sums[-1:, -1] / (height * width), squares / side.square()])


def select_inside(shares: Tensor, minimum: float = REGION_MASS) -> tuple[Tensor, bool]:
    """Return the mask [K] of factors with more than `minimum` of their mass inside, and whether it is the fallback.

    If no factor qualifies, the fallback keeps the one with the largest share.
    """
    kept = shares > minimum
    if kept.any():
        return kept, False
    fallback = torch.zeros_like(kept)
    fallback[shares.argmax()] = True
    return fallback, True
