"""Whiteners: what they do to the rows they were fitted to, and what the file keeps."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE
from whatwhere.indexer.backbones.registry import BACKBONES
from whatwhere.indexer.errors import WhitenerUnavailable
from whatwhere.indexer.features.descriptors import find_descriptor, whiten
from whatwhere.indexer.features.names import DESCRIPTORS, PRESETS
from whatwhere.indexer.features.whitener_fitting import fit
from whatwhere.indexer.features.whitening import Whitener, WhitenerKey, file_name, find, load, save

KEY = WhitenerKey(backbone="network", layer="head", weights_sha256="00ff", descriptor="what")


def correlated_rows(count: int, channels: int, seed: int = 0) -> NDArray[np.float32]:
    """Draw rows of length 1 whose channels have different variances, depend on each other and are not centred."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(count, channels)) * np.linspace(3, 0.5, channels)
    mixed = mixed @ generator.normal(size=(channels, channels)) + 2
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    """Give training rows."""
    return correlated_rows(800, 24)


@pytest.fixture(scope="module")
def whitener(rows: NDArray[np.float32]) -> Whitener:
    """Give a whitener of 10 dimensions fitted to the rows."""
    return fit(rows, KEY, "800 made-up rows", dimensions=10)


# --- fit and apply ----------------------------------------------------------------------------------------------


def test_whitened_training_rows_are_centerd(rows: NDArray[np.float32], whitener: Whitener) -> None:
    """Their mean is zero but for the rounding to float16."""
    whitened = whiten(torch.from_numpy(rows), whitener).numpy()

    assert np.abs(whitened.mean(axis=0)).max() < 0.02


def test_whitened_training_rows_have_unit_variance_and_no_correlation(
    rows: NDArray[np.float32], whitener: Whitener
) -> None:
    """Their covariance is the identity but for the rounding to float16."""
    whitened = whiten(torch.from_numpy(rows), whitener).numpy()

    np.testing.assert_allclose(np.cov(whitened.T), np.eye(10), atol=0.02)


def test_the_directions_of_largest_variance_are_kept(rows: NDArray[np.float32], whitener: Whitener) -> None:
    """An eigendecomposition of the covariance gives the same directions, up to their sign."""
    values, vectors = np.linalg.eigh(np.cov(rows.T.astype(np.float64)))
    largest = vectors[:, ::-1][:, :10] / np.sqrt(values[::-1][:10])

    signs = np.sign((whitener.projection * largest).sum(axis=0))

    np.testing.assert_allclose(whitener.projection * signs, largest, rtol=0.01, atol=0.01)


def test_applying_subtracts_the_mean_and_projects() -> None:
    """(1, 2) less (1, 0) is (0, 2); through ((1, 0), (3, 4)) that is (6, 8)."""
    mean = np.array([1.0, 0.0], dtype=np.float32)
    projection = np.array([[1.0, 0.0], [3.0, 4.0]], dtype=np.float32)

    whitened = whiten(torch.tensor([[1.0, 2.0]]), Whitener(KEY, mean, projection, ""))

    assert whitened.tolist() == [[6.0, 8.0]]


@pytest.mark.parametrize(
    ("count", "channels", "asked", "given"), [(800, 24, 10, 10), (800, 24, 512, 24), (9, 24, 512, 8), (2, 24, 512, 1)]
)
def test_dimensions_are_as_many_as_the_rows_support(count: int, channels: int, asked: int, given: int) -> None:
    """The dimensions asked for, but no more than channels, nor than rows less one."""
    fitted = fit(correlated_rows(count, channels), KEY, "", dimensions=asked)

    assert fitted.dimensions == given
    assert fitted.projection.shape == (channels, given)
    assert fitted.mean.shape == (channels,)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows_are_refused(count: int) -> None:
    """One row has no variance."""
    with pytest.raises(WhitenerUnavailable, match=f"{count} rows of what are too few"):
        fit(np.zeros((count, 4), dtype=np.float32), KEY, "")


def test_a_channel_that_never_varies_is_no_reason_for_infinities() -> None:
    """Directions without variance are bounded."""
    rows = np.array([[0.6, 0.8, 0.0], [0.8, 0.6, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=np.float32)

    fitted = fit(rows, KEY, "")

    assert fitted.dimensions == 3
    assert np.isfinite(fitted.projection).all()
    assert whiten(torch.from_numpy(rows), fitted).abs().max() < 10


# --- files ------------------------------------------------------------------------------------------------------


def test_a_saved_whitener_is_loaded_as_it_was(whitener: Whitener, tmp_path: Path) -> None:
    """Key, origin, mean and projection are the same to the last bit, in float32."""
    path = tmp_path / "whitener"

    save(whitener, path)
    loaded = load(path)

    assert loaded.key == whitener.key
    assert loaded.trained_on == "800 made-up rows"
    np.testing.assert_array_equal(loaded.mean, whitener.mean)
    np.testing.assert_array_equal(loaded.projection, whitener.projection)
    assert loaded.mean.dtype == loaded.projection.dtype == np.float32


def test_the_fingerprint_survives_the_file(whitener: Whitener, tmp_path: Path) -> None:
    """A collection recognises its whitener after saving and loading."""
    save(whitener, tmp_path / "whitener")

    assert load(tmp_path / "whitener").fingerprint == whitener.fingerprint


@pytest.mark.parametrize("field", ["backbone", "layer", "weights_sha256", "descriptor"])
def test_the_fingerprint_depends_on_the_key(whitener: Whitener, field: str) -> None:
    """The same numbers for something else are another whitener."""
    other = replace(whitener, key=replace(KEY, **{field: "another"}))

    assert other.fingerprint != whitener.fingerprint


@pytest.mark.parametrize("field", ["mean", "projection"])
def test_the_fingerprint_depends_on_the_numbers(whitener: Whitener, field: str) -> None:
    """One number changed is another whitener."""
    changed = getattr(whitener, field).copy()
    changed.flat[-1] += 1

    assert replace(whitener, **{field: changed}).fingerprint != whitener.fingerprint


def test_the_fingerprint_does_not_depend_on_where_it_was_trained(whitener: Whitener) -> None:
    """What the file tells about its origin decides no result."""
    assert replace(whitener, trained_on="elsewhere").fingerprint == whitener.fingerprint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message says how to make one."""
    with pytest.raises(WhitenerUnavailable, match="absent is missing: train a whitener with `whatwhere whiten`"):
        load(tmp_path / "absent")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_torn_file_is_refused(whitener: Whitener, tmp_path: Path, share: float) -> None:
    """However much of it is there, it is not all."""
    path = tmp_path / "whitener"
    save(whitener, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    with pytest.raises(WhitenerUnavailable, match="is not a whitener"):
        load(path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"whitener": "not JSON"},
        {"whitener": json.dumps([1, 2])},
        {"whitener": json.dumps({"key": {"backbone": "network"}, "trained_on": "x"})},
        {"whitener": json.dumps({"trained_on": "x"})},
        {"whitener": json.dumps({"key": asdict(KEY)})},
    ],
    ids=["none", "another program's", "no JSON", "a list", "half a key", "no key", "no origin"],
)
def test_a_file_that_describes_no_whitener_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    """Arrays alone are not enough: what they were made for must stand beside them."""
    path = tmp_path / "whitener"
    arrays = {"mean": np.zeros(3, dtype=np.float16), "projection": np.zeros((3, 2), dtype=np.float16)}
    save_file(arrays, path, metadata)

    with pytest.raises(WhitenerUnavailable, match="is not a whitener"):
        load(path)


def test_a_file_without_its_arrays_is_refused(tmp_path: Path) -> None:
    """A description alone is not enough either."""
    path = tmp_path / "whitener"
    described = {"whitener": json.dumps({"key": asdict(KEY), "trained_on": "x"})}
    save_file({"mean": np.zeros(3, dtype=np.float16)}, path, described)

    with pytest.raises(WhitenerUnavailable, match="is not a whitener"):
        load(path)


# --- finding ----------------------------------------------------------------------------------------------------


def test_a_whitener_is_found_in_a_folder(whitener: Whitener, tmp_path: Path) -> None:
    """By the name of its network and descriptor."""
    save(whitener, tmp_path / file_name("network", "what"))

    assert find(KEY, tmp_path).fingerprint == whitener.fingerprint


@pytest.mark.parametrize("field", ["layer", "weights_sha256"])
def test_a_whitener_for_something_else_is_refused(whitener: Whitener, tmp_path: Path, field: str) -> None:
    """The file name fits, but it was made for another layer or other weights."""
    save(whitener, tmp_path / file_name("network", "what"))

    with pytest.raises(WhitenerUnavailable, match=r"was fitted to .* is needed"):
        find(replace(KEY, **{field: "another"}), tmp_path)


def test_a_renamed_whitener_is_refused(whitener: Whitener, tmp_path: Path) -> None:
    """A file name is not believed."""
    save(whitener, tmp_path / file_name("network", "gem"))

    with pytest.raises(WhitenerUnavailable, match="was fitted to"):
        find(replace(KEY, descriptor="gem"), tmp_path)


def test_a_folder_without_the_whitener_is_named(tmp_path: Path) -> None:
    """The message holds the path that was looked at."""
    with pytest.raises(WhitenerUnavailable, match=str(tmp_path / "network.what.safetensors")):
        find(KEY, tmp_path)


def test_a_network_without_ready_made_whiteners_is_told_how_to_make_one() -> None:
    """The remedy is a command."""
    with pytest.raises(WhitenerUnavailable, match=r"no ready-made whitener for what of network: .*whatwhere whiten"):
        find(KEY)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("descriptor", DESCRIPTORS)
def test_every_descriptor_has_its_ready_made_whiteners(descriptor: str, preset: str) -> None:
    """All of them load and were made for the network and weights that this package uses."""
    spec = BACKBONES[DEFAULT_BACKBONE]
    rows = find_descriptor(descriptor, preset).whiteners

    found = [find(WhitenerKey(spec.name, spec.layer, spec.weights.sha256, name)) for name in rows]

    assert len(found) == (2 if descriptor == "fused" else 1)
    for whitener in found:
        assert whitener.projection.shape[0] == whitener.mean.shape[0] == spec.channels
        assert 1 < whitener.dimensions <= 512
        assert np.isfinite(whitener.projection).all()
        assert whitener.trained_on
