"""The numerical core against values that public reference code computed."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from whatwhere.indexer.features.nmf import factorize
from whatwhere.indexer.features.pooling import (
    crow_channel_weights,
    crow_rows,
    crow_spatial_weights,
    interact,
    rmac_rows,
)


def arrays(path: Path) -> dict[str, Tensor]:
    """Read all arrays of a file."""
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def cases(values: dict[str, Tensor], name: str) -> Iterator[tuple[int, Tensor]]:
    """Give every case's number and input; activations [C, H, W] as ours [H, W, C]."""
    count = sum(key.startswith(name) and key[len(name) :].isdigit() for key in values)
    assert count > 0
    for number in range(count):
        array = values[f"{name}{number}"]
        yield number, array.permute(1, 2, 0).contiguous() if name == "x" else array


def test_crow_channel_weights_are_those_of_its_authors(golden: Path) -> None:
    """To 1e-5 in float32, with the same channels dead."""
    values = arrays(golden / "crow.npz")

    for number, activations in cases(values, "x"):
        weights = crow_channel_weights(activations)

        torch.testing.assert_close(weights, values[f"channel{number}"], rtol=1e-5, atol=1e-5)
        assert torch.equal(weights == 0, values[f"channel{number}"] == 0)


def test_crow_spatial_weights_are_those_of_its_authors(golden: Path) -> None:
    """To 1e-5 in float32."""
    values = arrays(golden / "crow.npz")

    for number, activations in cases(values, "x"):
        torch.testing.assert_close(crow_spatial_weights(activations), values[f"spatial{number}"], rtol=1e-5, atol=1e-6)


def test_crow_descriptors_are_those_of_its_authors(golden: Path) -> None:
    """One row, to 1e-5 in float32."""
    values = arrays(golden / "crow.npz")

    for number, activations in cases(values, "x"):
        expected = values[f"aggregate{number}"].unsqueeze(0)
        torch.testing.assert_close(crow_rows(activations), expected, rtol=1e-5, atol=1e-5)


def test_rmac_rows_sum_to_the_reference(golden: Path) -> None:
    """Wide, tall and square maps: the sum over rows, to 1e-5 in float32."""
    values = arrays(golden / "rmac.npz")

    for number, activations in cases(values, "x"):
        summed = rmac_rows(activations).sum(dim=0)
        torch.testing.assert_close(summed, values[f"rmac{number}"], rtol=1e-5, atol=1e-5)


def test_interaction_is_that_of_plain_convolution(golden: Path) -> None:
    """V' = U'ᵀ U' V in float64, to 1e-5 of the largest entry and of each."""
    values = arrays(golden / "v_plus_u.npz")

    for number, where in cases(values, "U"):
        height, width = (int(side) for side in values[f"shape{number}"])
        expected = values[f"VU{number}"]

        rows = interact(where, values[f"V{number}"], height, width)

        torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_interaction_in_single_precision_stays_close(golden: Path) -> None:
    """Float32, as it runs, to 1e-4."""
    values = arrays(golden / "v_plus_u.npz")

    for number, where in cases(values, "U"):
        height, width = (int(side) for side in values[f"shape{number}"])

        rows = interact(where.float(), values[f"V{number}"].float(), height, width)

        torch.testing.assert_close(rows, values[f"VU{number}"].float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("row", range(6))
def test_the_default_sweeps_reach_the_error_of_two_hundred_updates(golden: Path, row: int) -> None:
    """For every matrix and rank: the median error over random starts of 200 multiplicative updates, or less."""
    reference = json.loads((golden / "nmf.json").read_text())["rows"][row]
    bound = min(
        each["relative_error_median"]
        for each in json.loads((golden / "nmf.json").read_text())["rows"]
        if (each["matrix"], each["rank"], each["updates"]) == (reference["matrix"], reference["rank"], 200)
    )
    matrix = arrays(golden / "nmf.npz")[reference["matrix"]]

    factors = factorize([matrix], reference["rank"])[0]

    error = float((matrix - factors.where @ factors.what).norm() / matrix.norm())
    assert error <= min(bound, reference["relative_error_median"])
