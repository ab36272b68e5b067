"""Compute global descriptors, by name and preset, from the whitened rows of a description.

The preset `thesis` sums rows as in the thesis that the method follows. The preset `default` measured best
(`service/evaluation/README.md` has the numbers). The baselines are the same in both. All are computed from stored
descriptions, without pixels or a network.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from whatwhere.indexer.errors import RegionNotSupported
from whatwhere.indexer.features import pooling
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.names import (
    BASELINES,
    DEFAULT_PRESET,
    FUSED,
    WHAT,
    WHAT_AND_WHERE,
    Composition,
    Part,
    find_composition,
)
from whatwhere.indexer.features.nmf import restore
from whatwhere.indexer.features.regions import Region, cells_touching, coverage
from whatwhere.indexer.features.whitening import Whitener

_EPS = 1e-6


@dataclass(frozen=True)
class Selection:
    """Rows [R, C] selected by a region, if any; a row's length is its weight in the sum.

    `kept` counts the factors inside the region (all without a region), and `fallback` is set, by `select_inside`. An
    `excluded` selection does not contribute to the vector.
    """

    rows: Tensor
    kept: int = 0
    fallback: bool = False
    excluded: bool = False


@dataclass(frozen=True)
class Focus:
    """The part of an image to search for: a region, and the indices of the chosen `factors` (None: all).

    `inside` is the region on the description's grid: the fraction of each cell [H, W].
    """

    region: Region | None = None
    inside: Tensor | None = None
    factors: frozenset[int] | None = None


Rows = Callable[[Description, Focus], Selection]


@dataclass(frozen=True)
class Descriptor(Composition):
    """A descriptor of one preset (see `Composition`) that makes vectors of descriptions."""

    @torch.inference_mode()
    def select(
        self, description: Description, region: Region | None = None, factors: Collection[int] | None = None
    ) -> tuple[Selection, ...]:
        """Select the rows of each part, only those of `factors` (indices) if given.

        Raises RegionNotSupported if the descriptor is a baseline, and `region` or `factors` is given.
        """
        if factors is not None and not self.uses_factors:
            raise RegionNotSupported(
                f"{self.name} has no factors to choose from: search by one of {WHAT}, {WHAT_AND_WHERE}, {FUSED}",
                field="concepts",
            )
        stored = description.factors
        inside = None if region is None else coverage(region, stored.height, stored.width)
        focus = Focus(region, inside, None if factors is None else frozenset(factors))
        return tuple(_select(part, description, focus) for part in self.parts)

    @torch.inference_mode()
    def vector(self, selections: Sequence[Selection], whiteners: Sequence[Whitener]) -> NDArray[np.float32]:
        """Compute the vector [D] of the selections: each part's rows are whitened and summed to length √share.

        It is a unit vector unless a part is excluded. Then its dot product with a stored vector is the cosine of the
        other parts.
        """
        included = [not selection.excluded for selection in selections]
        total = sum(part.share for part, is_included in zip(self.parts, included, strict=True) if is_included)
        vectors = [
            part.share**0.5 / total * global_descriptor(selection.rows, whitener)
            if is_included
            else np.zeros(whitener.dimensions, dtype=np.float32)
            for part, selection, whitener, is_included in zip(self.parts, selections, whiteners, included, strict=True)
        ]
        return np.concatenate(vectors)

    def describe(
        self, description: Description, whiteners: Sequence[Whitener], region: Region | None = None
    ) -> NDArray[np.float32]:
        """Compute the unit vector [D] of a description."""
        return self.vector(self.select(description, region), whiteners)


def unit_rows(rows: Tensor) -> Tensor:
    """Scale rows [R, C] to length 1, without zero rows (dead factors)."""
    return functional.normalize(rows[rows.norm(dim=1) > _EPS], dim=1)


def global_descriptor(rows: Tensor, whitener: Whitener) -> NDArray[np.float32]:
    """Sum rows [R, C] to a unit vector [D]: whitened at length 1, weighted by their length."""
    total = rows.norm(dim=1).sum()
    if total <= _EPS:
        return np.zeros(whitener.dimensions, dtype=np.float32)
    # A row is its unit row times its weight, and whitening is affine: up to its length, the weighted sum of whitened
    # unit rows is the whitened sum of the rows over the total weight.
    whitened = whiten((rows.sum(dim=0) / total).unsqueeze(0), whitener)[0]
    return functional.normalize(whitened, dim=0, eps=_EPS).numpy()


def expanded(vector: NDArray[np.float32], found: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Average a query vector [D] and those of its first results to a unit vector (average query expansion)."""
    total = np.sum([vector, *found], axis=0, dtype=np.float32)
    return np.asarray(total / max(float(np.linalg.norm(total)), _EPS), dtype=np.float32)


# --- rows ---------------------------------------------------------------------------------------------------------


def _factor_rows(
    description: Description, focus: Focus, *, interacting: bool = False, weighted: bool = False
) -> Selection:
    """Return the rows of V, or of V' = U'ᵀ U' V, of the chosen factors inside the region.

    All factors interact before any is removed (measured: filtering first lost 7 points). Weighted rows are scaled by
    the squared fraction of their heatmap inside (ours, measured on boxes in COCO: what 46.8 to 50.2 points).
    """
    stored = description.factors
    factors = restore(stored)
    grid = (stored.height, stored.width)
    rows = pooling.interact(factors.where, factors.what, *grid) if interacting else factors.what
    rows = functional.normalize(rows, dim=1, eps=_EPS)
    if weighted:
        rows = rows * pooling.factor_weights(factors.where, factors.what, *grid).unsqueeze(1)
    if focus.inside is None and focus.factors is None:
        return Selection(rows, len(rows))
    if focus.inside is None:
        shares = torch.ones(len(rows))
    else:
        shares = pooling.mass_inside(factors.where, focus.inside.flatten())
    if focus.factors is not None:
        shares = torch.where(_factor_mask(focus.factors, len(shares)), shares, -1.0)  # never the fallback
    kept, fallback = pooling.select_inside(shares)
    if weighted and shares.max() > 0:
        # relative to the largest share: else the rows of a region without factors would be removed as dead
        attenuation = (shares.clamp_min(0) / shares.max()).square()
        return Selection(rows * attenuation.unsqueeze(1), int(kept.sum()), fallback)
    return Selection(rows[kept], int(kept.sum()), fallback)


def _factor_mask(chosen: frozenset[int], rank: int) -> Tensor:
    return torch.tensor([index in chosen for index in range(rank)])


def _window_rows(description: Description, focus: Focus) -> Selection:
    """Return the weighted rows of V and the maxima of U V over R-MAC's windows, both with the same total weight.

    Ours. U V approximates the activations by K factors. A region keeps the factors inside it, and the windows cover
    the cells that it touches. The product has the chosen factors only.
    """
    stored = description.factors
    factors = restore(stored)
    where = factors.where.reshape(stored.height, stored.width, -1)
    if focus.factors is not None:
        where = where * _factor_mask(focus.factors, where.shape[2])
    cells = where if focus.region is None else cells_touching(where, focus.region)
    windows = pooling.rmac_rows(cells @ factors.what)
    weighted = _factor_rows(description, focus, weighted=True)
    rows = [_with_unit_total_weight(weighted.rows), _with_unit_total_weight(windows)]
    return Selection(torch.cat(rows), weighted.kept, weighted.fallback)


def _with_unit_total_weight(rows: Tensor) -> Tensor:
    total: Tensor = rows.norm(dim=1).sum()
    return rows / total.clamp_min(_EPS)


def _rmac_windows(description: Description, focus: Focus) -> Selection:
    """Return R-MAC's rows, with a region only those of windows inside it (by `select_inside`)."""
    rows = torch.from_numpy(description.pooled["r-mac"]).float()
    if focus.inside is not None:
        kept, _ = pooling.select_inside(pooling.squares_inside(focus.inside))
        rows = rows[kept]  # before dead windows are removed: the mask includes them
    return Selection(unit_rows(rows))


def _pooled_rows(name: str, description: Description, focus: Focus) -> Selection:
    if focus.region is not None:
        raise RegionNotSupported(
            f"a region of a stored image needs factors, which {name} does not use: use one of "
            f"{WHAT}, {WHAT_AND_WHERE}, {FUSED}, or upload the image",
            field="region",
        )
    return Selection(unit_rows(torch.from_numpy(description.pooled[name]).float()))


# --- the table ----------------------------------------------------------------------------------------------------

# what a part's `rows` stands for
ROWS: Mapping[str, Rows] = MappingProxyType(
    {
        "factors": _factor_rows,
        "interacting-factors": partial(_factor_rows, interacting=True),
        "weighted-factors": partial(_factor_rows, weighted=True),
        "windows": _window_rows,
        "r-mac-windows": _rmac_windows,
        **{name: partial(_pooled_rows, name) for name in BASELINES},
    }
)


def _select(part: Part, description: Description, focus: Focus) -> Selection:
    """Select a part's rows; pooled rows belong to no factor and are excluded if factors are chosen."""
    if part.pooled is not None and focus.factors is not None:
        return Selection(torch.empty(0, 0), excluded=True)
    return ROWS[part.rows](description, focus)


def find_descriptor(descriptor: str, preset: str = DEFAULT_PRESET) -> Descriptor:
    """Return a descriptor of a preset.

    Raises UnknownName if the descriptor or the preset does not exist.
    """
    return Descriptor(descriptor, preset, find_composition(descriptor, preset).parts)


def whiten(rows: Tensor, whitener: Whitener) -> Tensor:
    """Whiten unit rows [R, C] to [R, D]."""
    return (rows.cpu() - torch.from_numpy(whitener.mean)) @ torch.from_numpy(whitener.projection)


def training_rows(name: str, description: Description) -> Tensor:
    """Return the unit rows [R, C] that a whitener of this name is trained on (see `Part.whitener`)."""
    if name in ("what", "what-and-where"):
        rows = _factor_rows(description, Focus(), interacting=name == "what-and-where").rows
    else:
        rows = torch.from_numpy(description.pooled[name]).float()
    return unit_rows(rows)
