"""The one path image → factors → descriptors, for indexed and for query images alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from indexer import descriptors
from indexer.backbones import Backbone
from indexer.boxes import WHOLE_IMAGE, Box
from indexer.errors import RegionNotSupported, UnknownName
from indexer.factorize import QuantizedFactors, factorize, quantize
from indexer.whitening import Whitener, WhitenerKey

WHAT, WHAT_AND_WHERE = "what", "what-and-where"
FACTOR_DESCRIPTORS = (WHAT, WHAT_AND_WHERE)
_POOLED: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "mac": descriptors.mac_rows,
        "r-mac": descriptors.rmac_rows,
        "crow": descriptors.crow_rows,
        "gem": descriptors.gem_rows,
    }
)
DESCRIPTORS = (*FACTOR_DESCRIPTORS, *_POOLED)
_EPS = 1e-6


@dataclass(frozen=True)
class Description:
    """What is kept of an image: its factors, and the rows float16 [R, C] of each pooled descriptor asked for."""

    factors: QuantizedFactors
    pooled: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """Rows [R, C] of one descriptor, those of a region where there is one; `fallback` as in `select_inside`."""

    rows: Tensor
    fallback: bool = False


class Describer:
    """Describes pictures with one network at one rank."""

    def __init__(self, backbone: Backbone, rank: int, pooled: Sequence[str] = ()) -> None:
        self.backbone = backbone
        self.rank = rank
        self._pooled = {name: _POOLED[name] for name in pooled}

    def describe(self, images: Sequence[NDArray[np.uint8]], crop: Box = WHOLE_IMAGE) -> list[Description]:
        """Describe fitted pictures uint8 [h, w, 3]; the pooled descriptors see only the cells that `crop` touches."""
        if not images:
            return []
        activations = self.backbone.activations(images)
        weighted = [(grid * descriptors.crow_channel_weights(grid)).flatten(0, 1) for grid in activations]
        described = []
        for grid, factors in zip(activations, factorize(weighted, self.rank), strict=True):
            height, width, _ = grid.shape
            cropped = _cells_touching(grid, crop)
            pooled = {name: rows(cropped).half().cpu().numpy() for name, rows in self._pooled.items()}
            described.append(Description(quantize(factors, height, width), pooled))
        return described

    def whitener_key(self, descriptor: str) -> WhitenerKey:
        """Return what a whitener of `descriptor` must have been made for."""
        spec = self.backbone.spec
        return WhitenerKey(spec.name, spec.layer, spec.weights.sha256, descriptor)


def _cells_touching(grid: Tensor, box: Box) -> Tensor:
    height, width, _ = grid.shape
    return grid[_cells(height, box.y_min, box.y_max), _cells(width, box.x_min, box.x_max)]


def _cells(count: int, low: float, high: float) -> slice:
    """Return the cells, of `count` equal ones of [0, 1], that [low, high] touches: one at least.

    An edge that lies on a cell's border but for rounding does not touch the next cell.
    """
    first = min(int(low * count + _EPS), count - 1)
    return slice(first, max(int(np.ceil(high * count - _EPS)), first + 1))


def check_descriptors(names: Sequence[str]) -> None:
    """Raise UnknownName for a descriptor that does not exist."""
    for name in names:
        if name not in DESCRIPTORS:
            raise UnknownName(f"descriptor {name!r} is unknown; there are: {', '.join(DESCRIPTORS)}")


def select_rows(description: Description, descriptor: str, region: Box | None = None) -> Selection:
    """Return the rows of a descriptor, with `region` those of the factors inside it.

    What-and-where lets all factors interact before any is left out (measured: filtering first lost 7 points).
    RegionNotSupported for a pooled descriptor: its rows are of the whole picture, or of what `describe` cropped.
    """
    if descriptor in _POOLED:
        if region is not None:
            raise RegionNotSupported(
                f"a region on a stored image needs factors, which {descriptor} does not use: ask with one of "
                f"{', '.join(FACTOR_DESCRIPTORS)}, or upload the image",
                field="region",
            )
        return Selection(torch.from_numpy(description.pooled[descriptor]).float())
    stored = description.factors
    factors = stored.restore()
    rows = factors.what
    if descriptor == WHAT_AND_WHERE:
        rows = descriptors.interact(factors.where, factors.what, stored.height, stored.width)
    if region is None:
        return Selection(rows)
    shares = descriptors.mass_inside(factors.where, stored.height, stored.width, region)
    kept, fallback = descriptors.select_inside(shares)
    return Selection(rows[kept], fallback)


def unit_rows(rows: Tensor) -> Tensor:
    """Scale rows [R, C] to length 1, leaving out those that are zero (dead factors)."""
    return functional.normalize(rows[rows.norm(dim=1) > _EPS], dim=1)


def global_descriptor(rows: Tensor, whitener: Whitener) -> NDArray[np.float32]:
    """Sum whitened rows [R, C] to one unit vector [D]."""
    return functional.normalize(whitener.apply(unit_rows(rows)).sum(dim=0), dim=0, eps=_EPS).numpy()
