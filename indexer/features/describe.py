"""Describe images by NMF factors and pooled activations; indexed and query images take the same path."""

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

# pooled activations that are stored beside the factors, and cells to train whiteners on
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
    """Describes images with one network at one NMF rank; `pooled` has the keys of POOLED to store, too."""

    def __init__(self, backbone: Backbone, rank: int, pooled: Sequence[str] = ()) -> None:
        self.backbone = backbone
        self.rank = rank
        self.pooled = tuple(pooled)

    def describe(self, images: Sequence[NDArray[np.uint8]], crop: Region = WHOLE_IMAGE) -> list[Description]:
        """Describe images uint8 [h, w, 3], sides multiples of 32; pooling uses only the cells that touch `crop`."""
        return self.describe_activations(self.backbone.activations(images), [crop] * len(images))

    def describe_activations(
        self, activations: Sequence[Tensor], crops: Sequence[Region] | None = None
    ) -> list[Description]:
        """Describe images by their activations [h, w, C] as `describe` does, each with its own crop."""
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
            pooled = {name: _as_uint8(POOLED[name](cropped)) for name in self.pooled}
            described.append(Description(quantize(factors, height, width), pooled))
        return described

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """Everything but the image that determines a description: network, weights, precision, NMF, pooling."""
        spec, backbone = self.backbone.spec, self.backbone
        return (spec.name, spec.layer, backbone.weights_sha256, backbone.precision, VERSION, self.rank, *self.pooled)

    def whitener_key(self, rows: str) -> WhitenerKey:
        """Return the key that a whitener of these rows (see `Part.whitener`) must have."""
        spec = self.backbone.spec
        return WhitenerKey(spec.name, spec.layer, self.backbone.weights_sha256, rows)


def _as_uint8(rows: Tensor) -> NDArray[np.uint8]:
    peaks = rows.amax(dim=1, keepdim=True).clamp_min(_EPS)
    return (rows * (255 / peaks)).round().to(torch.uint8).cpu().numpy()
