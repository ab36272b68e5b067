"""One path from pixels to what is kept of them: independent of the batch, and with a crop."""

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from whatwhere.indexer.backbones.backbone import Backbone
from whatwhere.indexer.backbones.torch_threads import torch_threads
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box
from whatwhere.indexer.features import pooling
from whatwhere.indexer.features.describe import POOLED, Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.nmf import factorize, restore
from whatwhere.indexer.features.whitening import WhitenerKey

POOLED_ROWS = {
    "mac": pooling.mac_rows,
    "r-mac": pooling.rmac_rows,
    "crow": pooling.crow_rows,
    "gem": pooling.gem_rows,
    "cells": pooling.cell_rows,
}


def in_steps_of_the_largest(rows: torch.Tensor) -> NDArray[np.float32]:
    """Scale rows so that the largest entry of each is 255."""
    return (rows * 255 / rows.amax(dim=1, keepdim=True)).numpy()


def changed(backbone: Backbone, **attributes: object) -> Backbone:
    """Return a backbone that says something else of itself."""
    other = copy(backbone)
    vars(other).update(attributes)
    return other


# --- describing -------------------------------------------------------------------------------------------------


def test_factors_lie_on_the_networks_grid(described: list[Description], pictures: list[NDArray[np.uint8]]) -> None:
    """One cell for 32 pixels, in the order of the pictures, at the rank of the describer."""
    for description, pixels in zip(described, pictures, strict=True):
        factors = description.factors

        assert (factors.height, factors.width) == (pixels.shape[0] // 32, pixels.shape[1] // 32)
        assert factors.where.shape == (factors.height * factors.width, 6)
        assert factors.what.shape == (6, 1280)


def test_factors_explain_activations_weighted_by_channel(
    describer: Describer, described: list[Description], pictures: list[NDArray[np.uint8]]
) -> None:
    """U V is near A diag(w), nearer than to A by far."""
    activations = describer.backbone.activations(pictures[:1])[0]
    weighted = (activations * pooling.crow_channel_weights(activations)).flatten(0, 1)
    factors = restore(described[0].factors)

    product = factors.where @ factors.what

    assert (product - weighted).norm() / weighted.norm() < 0.7
    assert torch.nn.functional.cosine_similarity(product.flatten(), weighted.flatten(), dim=0) > 0.75


@pytest.mark.parametrize("name", POOLED_ROWS)
def test_pooled_rows_are_those_of_the_activations(
    describer: Describer, described: list[Description], pictures: list[NDArray[np.uint8]], name: str
) -> None:
    """Kept in 8 bits, the largest entry of each row at 255, of the unweighted activations."""
    expected = POOLED_ROWS[name](describer.backbone.activations(pictures[:1])[0])

    kept = described[0].pooled[name]

    assert kept.dtype == np.uint8
    np.testing.assert_allclose(kept, in_steps_of_the_largest(expected), rtol=0, atol=0.501)
    assert kept.max(axis=1).tolist() == [255] * len(expected)


def test_only_the_pooled_descriptors_asked_for_are_kept(
    describer: Describer, pictures: list[NDArray[np.uint8]]
) -> None:
    """They cost room, cells most of all."""
    assert describer.describe(pictures[:1])[0].pooled.keys() == set(POOLED)
    assert Describer(describer.backbone, 6, ["gem"]).describe(pictures[:1])[0].pooled.keys() == {"gem"}
    assert Describer(describer.backbone, 6).describe(pictures[:1])[0].pooled == {}


def test_the_same_batch_gives_the_same_bytes(
    describer: Describer, described: list[Description], pictures: list[NDArray[np.uint8]]
) -> None:
    """Describing is deterministic."""
    again = describer.describe(pictures)

    for one, other in zip(described, again, strict=True):
        for field in ("where", "where_scale", "what", "what_scale"):
            assert getattr(one.factors, field).tobytes() == getattr(other.factors, field).tobytes()
        for name in POOLED:
            assert one.pooled[name].tobytes() == other.pooled[name].tobytes()


def test_a_whitener_key_names_network_layer_weights_and_rows(describer: Describer) -> None:
    """What a whitener of these rows must have been made for."""
    spec = describer.backbone.spec

    key = describer.whitener_key("cells")

    assert key == WhitenerKey("efficientnet-lite0", "head", spec.weights.sha256, "cells")


def test_everything_that_decides_a_description_is_in_its_fingerprint(describer: Describer) -> None:
    """Another precision, layer, rank, or kind of pooling, or other weights: another fingerprint; the same, the same."""
    backbone, pooled = describer.backbone, ("mac", "gem")
    others = [
        Describer(changed(backbone, precision="bfloat16"), 6, pooled),
        Describer(changed(backbone, weights_sha256="0" * 64), 6, pooled),
        Describer(changed(backbone, spec=replace(backbone.spec, layer="other")), 6, pooled),
        Describer(changed(backbone, spec=replace(backbone.spec, name="other")), 6, pooled),
        Describer(backbone, 7, pooled),
        Describer(backbone, 6, ("mac",)),
        Describer(backbone, 6),
    ]

    prints = {Describer(backbone, 6, pooled).fingerprint, *(other.fingerprint for other in others)}

    assert len(prints) == 1 + len(others)
    assert Describer(backbone, 6, list(pooled)).fingerprint == Describer(backbone, 6, pooled).fingerprint


# --- cropping ---------------------------------------------------------------------------------------------------


def test_a_crop_leaves_the_factors_alone(
    describer: Describer, described: list[Description], pictures: list[NDArray[np.uint8]]
) -> None:
    """The box never crops the picture for the factors."""
    cropped = describer.describe(pictures, Box(0.25, 0.25, 0.5, 0.5))

    for one, other in zip(cropped, described, strict=True):
        np.testing.assert_array_equal(one.factors.where, other.factors.where)
        np.testing.assert_array_equal(one.factors.what, other.factors.what)


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        (WHOLE_IMAGE, slice(0, 7), slice(0, 10)),
        (Box(0.0, 0.0, 0.5, 1.0), slice(0, 7), slice(0, 5)),  # on the border of a cell: no further
        (Box(0.11, 0.2, 0.59, 0.8), slice(1, 6), slice(1, 6)),  # 1.1 to 5.9 of 10 columns, 1.4 to 5.6 of 7 rows
        (Box(0.5, 0.01, 0.51, 0.02), slice(0, 1), slice(5, 6)),  # within a cell
        (Box(0.99, 0.99, 1.0, 1.0), slice(6, 7), slice(9, 10)),
    ],
)
def test_pooled_descriptors_see_only_the_cells_that_a_crop_touches(
    describer: Describer, pictures: list[NDArray[np.uint8]], crop: Box, rows: slice, columns: slice
) -> None:
    """Of a grid of 7 rows and 10 columns, cells that the box cuts are seen whole."""
    grid = describer.backbone.activations(pictures[:1])[0][rows, columns]

    cropped = describer.describe(pictures[:1], crop)[0].pooled

    for name, rows_of in POOLED_ROWS.items():
        np.testing.assert_allclose(cropped[name], in_steps_of_the_largest(rows_of(grid)), rtol=0, atol=0.501)


@pytest.mark.parametrize(("beside", "seen"), [(1, 1), (None, 3)])
def test_factors_are_computed_with_the_threads_that_suit_the_engine(
    describer: Describer,
    pictures: list[NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
    beside: int | None,
    seen: int,
) -> None:
    """As many threads of torch as work well beside the engine's; after that the caller has as many as before."""
    counts = []

    def counted(*arguments: Any) -> Any:
        counts.append(torch.get_num_threads())
        return factorize(*arguments)

    monkeypatch.setattr("whatwhere.indexer.features.describe.factorize", counted)
    monkeypatch.setattr(describer.backbone.engine, "torch_threads", beside)

    with torch_threads(3):
        describer.describe(pictures[:1])
        after = torch.get_num_threads()

    assert (counts, after) == ([seen], 3)
