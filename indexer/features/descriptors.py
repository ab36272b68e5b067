"""Descriptors by name and preset: which rows of a description, weighted how, through which whitener, make a vector.

The preset `thesis` sums rows as the thesis does that the method follows. The preset `default` is what measured best
(`service/evaluation/README.md` has the numbers). The baselines are the same in both. All work on what a description
keeps: no pixels, no network.
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
    """Rows [R, C], those of a region where there is one; a row's length is its weight in the sum.

    `kept` counts the factors that lie in the region by the rule of `select_inside`, all without a region; `fallback` is
    as there. One that stands `aside` has no say in the vector.
    """

    rows: Tensor
    kept: int = 0
    fallback: bool = False
    aside: bool = False


@dataclass(frozen=True)
class Focus:
    """What of a picture is asked for: what lies in the region, of the factors in `concepts`, of all without.

    `inside` is the region on the description's grid: the share of each cell [H, W].
    """

    region: Region | None = None
    inside: Tensor | None = None
    concepts: frozenset[int] | None = None


Rows = Callable[[Description, Focus], Selection]


@dataclass(frozen=True)
class Descriptor(Composition):
    """A descriptor of one preset, as `Composition` says, with what makes vectors of descriptions."""

    @torch.inference_mode()
    def select(
        self, description: Description, region: Region | None = None, factors: Collection[int] | None = None
    ) -> tuple[Selection, ...]:
        """Return the rows of each part, where there are `factors` those of these factors alone.

        RegionNotSupported for a baseline: its rows are of what was cropped, and belong to no factor.
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
        """Return the vector [D] of what `select` chose: each part's rows, whitened, summed to length √share.

        A unit vector, but where a part stands aside: then the product with a stored vector is the cosine of the others.
        """
        said = [not selection.aside for selection in selections]
        total = sum(part.share for part, speaks in zip(self.parts, said, strict=True) if speaks)
        vectors = [
            part.share**0.5 / total * global_descriptor(selection.rows, whitener)
            if speaks
            else np.zeros(whitener.dimensions, dtype=np.float32)
            for part, selection, whitener, speaks in zip(self.parts, selections, whiteners, said, strict=True)
        ]
        return np.concatenate(vectors)

    def describe(
        self, description: Description, whiteners: Sequence[Whitener], region: Region | None = None
    ) -> NDArray[np.float32]:
        """Return the unit vector [D] of a description."""
        return self.vector(self.select(description, region), whiteners)


def unit_rows(rows: Tensor) -> Tensor:
    """Scale rows [R, C] to length 1, leaving out those that are zero (dead factors)."""
    return functional.normalize(rows[rows.norm(dim=1) > _EPS], dim=1)


def global_descriptor(rows: Tensor, whitener: Whitener) -> NDArray[np.float32]:
    """Sum rows [R, C], whitened at length 1 and weighted by their own length, to one unit vector [D]."""
    total = rows.norm(dim=1).sum()
    if total <= _EPS:
        return np.zeros(whitener.dimensions, dtype=np.float32)
    # A row is its unit row times its weight, and whitening is affine: the weighted sum of whitened unit rows is the
    # whitened mean of the rows as they are, but for its length.
    whitened = whiten((rows.sum(dim=0) / total).unsqueeze(0), whitener)[0]
    return functional.normalize(whitened, dim=0, eps=_EPS).numpy()


def expanded(vector: NDArray[np.float32], found: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the unit vector of a query and its first results together (query expansion by the mean)."""
    total = np.sum([vector, *found], axis=0, dtype=np.float32)
    return np.asarray(total / np.linalg.norm(total), dtype=np.float32)


# --- rows ---------------------------------------------------------------------------------------------------------


def _factor_rows(
    description: Description, focus: Focus, *, interacting: bool = False, weighted: bool = False
) -> Selection:
    """Return V's rows, or those of V' = U'ᵀ U' V, of the chosen factors inside the region.

    All factors interact before any is left out (measured: filtering first lost 7 points). Weighted rows fade with the
    square of their heatmap's share inside (ours, measured on boxes in COCO: what 46.8 to 50.2 points).
    """
    stored = description.factors
    factors = restore(stored)
    grid = (stored.height, stored.width)
    rows = pooling.interact(factors.where, factors.what, *grid) if interacting else factors.what
    rows = functional.normalize(rows, dim=1, eps=_EPS)
    if weighted:
        rows = rows * pooling.factor_weights(factors.where, factors.what, *grid).unsqueeze(1)
    if focus.inside is None and focus.concepts is None:
        return Selection(rows, len(rows))
    if focus.inside is None:
        shares = torch.ones(len(rows))
    else:
        shares = pooling.mass_inside(factors.where, focus.inside.flatten())
    if focus.concepts is not None:
        shares = torch.where(_among(focus.concepts, len(shares)), shares, -1.0)  # not even to fall back on
    kept, fallback = pooling.select_inside(shares)
    if weighted and shares.max() > 0:
        # over the largest share, or what is left of a region without factors would pass for dead
        fading = (shares.clamp_min(0) / shares.max()).square()
        return Selection(rows * fading.unsqueeze(1), int(kept.sum()), fallback)
    return Selection(rows[kept], int(kept.sum()), fallback)


def _among(concepts: frozenset[int], rank: int) -> Tensor:
    return torch.tensor([index in concepts for index in range(rank)])


def _window_rows(description: Description, focus: Focus) -> Selection:
    """Return the weighted rows of V beside the maxima of U V over R-MAC's windows, both of the same total weight.

    Ours. The factors stand for the activations: U V is the picture without what K concepts do not explain. A region
    keeps the factors inside it, and the windows are those of the cells it touches; factors that are not chosen are not
    in the product.
    """
    stored = description.factors
    factors = restore(stored)
    where = factors.where.reshape(stored.height, stored.width, -1)
    if focus.concepts is not None:
        where = where * _among(focus.concepts, where.shape[2])
    cells = where if focus.region is None else cells_touching(where, focus.region)
    windows = pooling.rmac_rows(cells @ factors.what)
    concepts = _factor_rows(description, focus, weighted=True)
    rows = [_at_total_weight_one(concepts.rows), _at_total_weight_one(windows)]
    return Selection(torch.cat(rows), concepts.kept, concepts.fallback)


def _at_total_weight_one(rows: Tensor) -> Tensor:
    total: Tensor = rows.norm(dim=1).sum()
    return rows / total.clamp_min(_EPS)


def _rmac_windows(description: Description, focus: Focus) -> Selection:
    """Return R-MAC's rows, with a region those whose windows lie in it, by the rule of the factors."""
    rows = torch.from_numpy(description.pooled["r-mac"]).float()
    if focus.inside is not None:
        kept, _ = pooling.select_inside(pooling.squares_inside(focus.inside))
        rows = rows[kept]  # before dead windows are left out: they have their shares too
    return Selection(unit_rows(rows))


def _pooled_rows(name: str, description: Description, focus: Focus) -> Selection:
    if focus.region is not None:
        raise RegionNotSupported(
            f"a region on a stored image needs factors, which {name} does not use: ask with one of "
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
    """Return a part's rows; what is pooled belongs to no factor, and stands aside where factors are chosen."""
    if part.pooled is not None and focus.concepts is not None:
        return Selection(torch.empty(0, 0), aside=True)
    return ROWS[part.rows](description, focus)


def find_descriptor(descriptor: str, preset: str = DEFAULT_PRESET) -> Descriptor:
    """Return a descriptor of a preset; UnknownName for one that does not exist."""
    return Descriptor(descriptor, preset, find_composition(descriptor, preset).parts)


def whiten(rows: Tensor, whitener: Whitener) -> Tensor:
    """Whiten rows [R, C] of length 1 to [R, D]."""
    return (rows.cpu() - torch.from_numpy(whitener.mean)) @ torch.from_numpy(whitener.projection)


def training_rows(name: str, description: Description) -> Tensor:
    """Return the rows [R, C], of length 1, that a whitener of this name is trained on (see `Part.whitener`)."""
    if name in ("what", "what-and-where"):
        rows = _factor_rows(description, Focus(), interacting=name == "what-and-where").rows
    else:
        rows = torch.from_numpy(description.pooled[name]).float()
    return unit_rows(rows)
