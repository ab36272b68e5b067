"""The one path image → factors → descriptors, for indexed and for query images alike."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.indexer.backbones.backbone import Backbone
from whatwhere.indexer.boxes import WHOLE_IMAGE
from whatwhere.indexer.features import pooling
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.nmf import VERSION, factorize, quantize
from whatwhere.indexer.features.regions import Region, cells_touching
from whatwhere.indexer.features.whitening import WhitenerKey

# what is kept of activations beside the factors, and cells to train whiteners on
POOLED: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "mac": pooling.mac_rows,
        "r-mac": pooling.rmac_rows,
        "crow": pooling.crow_rows,
        "gem": pooling.gem_rows,
        "cells": pooling.cell_rows,
    }
)
_EPS = 1e-6


class Describer:
    """Describes pictures with one network at one rank; `pooled` names what of POOLED is kept too."""

    def __init__(self, backbone: Backbone, rank: int, pooled: Sequence[str] = ()) -> None:
        self.backbone = backbone
        self.rank = rank
        self.pooled = tuple(pooled)

    def describe(self, images: Sequence[NDArray[np.uint8]], crop: Region = WHOLE_IMAGE) -> list[Description]:
        """Describe fitted pictures uint8 [h, w, 3]; what is pooled sees only the cells that `crop` touches."""
        return self.describe_activations(self.backbone.activations(images), [crop] * len(images))

    def describe_activations(
        self, activations: Sequence[Tensor], crops: Sequence[Region] | None = None
    ) -> list[Description]:
        """Describe what the network says of pictures, [h, w, C] each, as `describe` does; each with its own crop."""
        if not activations:
            return []
        with self.backbone.threads_beside():
            return self._described(activations, [WHOLE_IMAGE] * len(activations) if crops is None else crops)

    def _described(self, activations: Sequence[Tensor], crops: Sequence[Region]) -> list[Description]:
        weighted = [(grid * pooling.crow_channel_weights(grid)).flatten(0, 1) for grid in activations]
        described = []
        for grid, factors, crop in zip(activations, factorize(weighted, self.rank), crops, strict=True):
            height, width, _ = grid.shape
            cropped = cells_touching(grid, crop)
            pooled = {name: _in_bytes(POOLED[name](cropped)) for name in self.pooled}
            described.append(Description(quantize(factors, height, width), pooled))
        return described

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """What decides a description beside the picture: network, weights, precision, factorisation, what is pooled."""
        spec, backbone = self.backbone.spec, self.backbone
        return (spec.name, spec.layer, backbone.weights_sha256, backbone.precision, VERSION, self.rank, *self.pooled)

    def whitener_key(self, rows: str) -> WhitenerKey:
        """Return what a whitener of these rows (see `Part.whitener`) must have been made for."""
        spec = self.backbone.spec
        return WhitenerKey(spec.name, spec.layer, self.backbone.weights_sha256, rows)


def _in_bytes(rows: Tensor) -> NDArray[np.uint8]:
    peaks = rows.amax(dim=1, keepdim=True).clamp_min(_EPS)
    return (rows * (255 / peaks)).round().to(torch.uint8).cpu().numpy()
