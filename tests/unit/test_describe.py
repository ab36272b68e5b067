"""One path from pixels to descriptors: independent of the batch, and with a region."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from indexer import descriptors
from indexer.backbones import DEFAULT_BACKBONE, load_backbone
from indexer.boxes import WHOLE_IMAGE, Box
from indexer.describe import (
    DESCRIPTORS,
    FACTOR_DESCRIPTORS,
    Describer,
    Description,
    check_descriptors,
    global_descriptor,
    select_rows,
    unit_rows,
)
from indexer.errors import RegionNotSupported, UnknownName
from indexer.factorize import QuantizedFactors
from indexer.whitening import Whitener, WhitenerKey, find
from tests.conftest import MOTORBIKE, SCIKIT_IMAGE

RANK = 6
POOLED_ROWS = {
    "mac": descriptors.mac_rows,
    "r-mac": descriptors.rmac_rows,
    "crow": descriptors.crow_rows,
    "gem": descriptors.gem_rows,
}
POOLED = tuple(POOLED_ROWS)
NAMES = ("motorcycle_left", "motorcycle_right", "coffee", "chelsea")


@pytest.fixture(scope="module")
def describer() -> Describer:
    """Give a describer of every descriptor, on the CPU."""
    return Describer(load_backbone(DEFAULT_BACKBONE, torch.device("cpu")), RANK, POOLED)


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    """Give the pixels of photographs, two of them of one size."""
    sizes = [(320, 224), (320, 224), (288, 192), (224, 224)]
    opened = [Image.open(SCIKIT_IMAGE / f"{name}.png") for name in NAMES]
    return [np.array(image.convert("RGB").resize(size)) for image, size in zip(opened, sizes, strict=True)]


@pytest.fixture(scope="module")
def described(describer: Describer, pictures: list[NDArray[np.uint8]]) -> list[Description]:
    """Give the descriptions of the photographs, made together."""
    return describer.describe(pictures)


@pytest.fixture(scope="module")
def whiteners(describer: Describer) -> dict[str, Whitener]:
    """Give the ready-made whiteners."""
    return {name: find(describer.whitener_key(name)) for name in DESCRIPTORS}


def by_hand(where: list[list[list[int]]], what: list[list[int]]) -> Description:
    """Write a description from heatmaps [K][H][W] and concepts [K][C] in steps of 1."""
    maps = np.array(where, dtype=np.uint8)
    count, height, width = maps.shape
    ones = np.ones(count, dtype=np.float32)
    concepts = np.array(what, dtype=np.uint8)
    return Description(QuantizedFactors(maps.reshape(count, -1).T, ones, concepts, ones, height, width))


def plain_whitener(channels: int) -> Whitener:
    """Give a whitener that changes nothing."""
    mean, projection = np.zeros(channels, dtype=np.float32), np.eye(channels, dtype=np.float32)
    return Whitener(WhitenerKey("", "", "", ""), mean, projection, "")


# --- describing -------------------------------------------------------------------------------------------------


def test_factors_lie_on_the_networks_grid(described: list[Description], pictures: list[NDArray[np.uint8]]) -> None:
    """One cell for 32 pixels, in the order of the pictures, at the rank asked for."""
    for description, pixels in zip(described, pictures, strict=True):
        factors = description.factors

        assert (factors.height, factors.width) == (pixels.shape[0] // 32, pixels.shape[1] // 32)
        assert factors.where.shape == (factors.height * factors.width, RANK)
        assert factors.what.shape == (RANK, 1280)


def test_factors_explain_activations_weighted_by_channel(
    describer: Describer, described: list[Description], pictures: list[NDArray[np.uint8]]
) -> None:
    """U V is near A diag(w), nearer than to A by far."""
    activations = describer.backbone.activations(pictures[:1])[0]
    weighted = (activations * descriptors.crow_channel_weights(activations)).flatten(0, 1)
    factors = described[0].factors.restore()

    product = factors.where @ factors.what

    assert (product - weighted).norm() / weighted.norm() < 0.7
    assert torch.nn.functional.cosine_similarity(product.flatten(), weighted.flatten(), dim=0) > 0.75


@pytest.mark.parametrize("name", POOLED)
def test_pooled_rows_are_those_of_the_activations(
    describer: Describer, described: list[Description], pictures: list[NDArray[np.uint8]], name: str
) -> None:
    """Kept as float16, of the unweighted activations."""
    expected = POOLED_ROWS[name](describer.backbone.activations(pictures[:1])[0])

    kept = described[0].pooled[name]

    assert kept.dtype == np.float16
    torch.testing.assert_close(torch.from_numpy(kept).float(), expected, rtol=1e-3, atol=1e-3)


def test_only_the_pooled_descriptors_asked_for_are_kept(
    describer: Describer, pictures: list[NDArray[np.uint8]]
) -> None:
    """They cost room."""
    assert describer.describe(pictures[:1])[0].pooled.keys() == set(POOLED)
    assert Describer(describer.backbone, RANK, ["gem"]).describe(pictures[:1])[0].pooled.keys() == {"gem"}
    assert Describer(describer.backbone, RANK).describe(pictures[:1])[0].pooled == {}


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


@pytest.mark.parametrize("batch", [1, 3])
def test_global_descriptors_do_not_depend_on_the_batch(
    describer: Describer,
    described: list[Description],
    pictures: list[NDArray[np.uint8]],
    whiteners: dict[str, Whitener],
    batch: int,
) -> None:
    """Alone, or three together and one alone, or all together: a cosine of 0.9999 or more for every descriptor."""
    split = [pictures[start : start + batch] for start in range(0, len(pictures), batch)]

    apart = [description for part in split for description in describer.describe(part)]

    for name, whitener in whiteners.items():
        for one, other in zip(apart, described, strict=True):
            vectors = [global_descriptor(select_rows(each, name).rows, whitener) for each in (one, other)]
            assert vectors[0] @ vectors[1] >= 0.9999


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_the_other_view_of_a_motorbike_is_nearer_than_coffee_and_a_cat(
    described: list[Description], whiteners: dict[str, Whitener], name: str
) -> None:
    """The descriptors do what they are for."""
    vectors = np.stack([global_descriptor(select_rows(each, name).rows, whiteners[name]) for each in described])

    scores = vectors[1:] @ vectors[0]

    assert scores[0] > scores[1:].max() + 0.2


def test_a_black_picture_is_described_without_infinities(describer: Describer, whiteners: dict[str, Whitener]) -> None:
    """Few activations are no reason for a not-a-number."""
    description = describer.describe([np.zeros((64, 64, 3), dtype=np.uint8)])[0]

    for name, whitener in whiteners.items():
        vector = global_descriptor(select_rows(description, name).rows, whitener)

        assert np.isfinite(vector).all()
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)


def test_a_whitener_key_names_network_layer_weights_and_descriptor(describer: Describer) -> None:
    """What a whitener of this descriptor must have been made for."""
    spec = describer.backbone.spec

    key = describer.whitener_key("gem")

    assert key == WhitenerKey("efficientnet-lite0", "head", spec.weights.sha256, "gem")


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
        torch.testing.assert_close(torch.from_numpy(cropped[name]).float(), rows_of(grid), rtol=1e-3, atol=1e-3)


# --- selecting --------------------------------------------------------------------------------------------------

# Three heatmaps on 4 x 8 cells: left, left (the same place), and far right.
LEFT = [[8, 0, 0, 0, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0], [0] * 8, [0] * 8]
RIGHT = [row[::-1] for row in LEFT]
CONCEPTS = [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0]]


def test_what_is_the_concepts() -> None:
    """Without a region all of them."""
    selection = select_rows(by_hand([LEFT, LEFT, RIGHT], CONCEPTS), "what")

    assert selection.rows.tolist() == CONCEPTS
    assert not selection.fallback


def test_what_and_where_is_the_concepts_after_interaction() -> None:
    """Factors in one place share theirs, one far away almost keeps its own."""
    selection = select_rows(by_hand([LEFT, LEFT, RIGHT], CONCEPTS), "what-and-where")

    expected = torch.tensor([[1.0, 2.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
    torch.testing.assert_close(selection.rows, expected, atol=0.02, rtol=0)


def test_a_region_selects_the_concepts_inside() -> None:
    """Those with more than three quarters of their heatmap in the box."""
    selection = select_rows(by_hand([LEFT, RIGHT, LEFT], CONCEPTS), "what", Box(0.0, 0.0, 0.5, 1.0))

    assert selection.rows.tolist() == [CONCEPTS[0], CONCEPTS[2]]
    assert not selection.fallback


def test_factors_outside_the_region_take_part_in_the_interaction() -> None:
    """A factor half inside, which no region of the left keeps, still shares its concept with the left one."""
    both = [[left + right for left, right in zip(*rows, strict=True)] for rows in zip(LEFT, RIGHT, strict=True)]
    description = by_hand([LEFT, both], CONCEPTS[:2])
    unrestricted = select_rows(description, "what-and-where")

    selection = select_rows(description, "what-and-where", Box(0.0, 0.0, 0.5, 1.0))

    assert selection.rows.shape == (1, 4)
    torch.testing.assert_close(selection.rows, unrestricted.rows[:1])
    assert selection.rows[0, 1] > 1


@pytest.mark.parametrize("name", FACTOR_DESCRIPTORS)
def test_a_region_without_a_factor_falls_back_to_the_nearest_one(name: str) -> None:
    """One row is kept, and the selection says so."""
    both = [[left + 2 * right for left, right in zip(*rows, strict=True)] for rows in zip(LEFT, RIGHT, strict=True)]

    selection = select_rows(by_hand([RIGHT, both, RIGHT], CONCEPTS), name, Box(0.0, 0.0, 0.5, 1.0))

    assert selection.fallback
    assert selection.rows.shape == (1, 4)
    assert selection.rows.argmax() == 1 or name == "what-and-where"
    assert selection.rows[0, 1] > 0


@pytest.mark.parametrize("region", [Box(0.0, 0.0, 1.0, 0.5), Box(0.0, 0.0, 0.125, 1.0)])
def test_a_regions_sides_are_not_mixed_up(region: Box) -> None:
    """On a grid that is not square, a band above and a strip at the left hold the same corner."""
    lower = LEFT[::-1]

    selection = select_rows(by_hand([LEFT, RIGHT, lower], CONCEPTS), "what", region)

    second = 1 if region.x_max == 1.0 else 2
    assert selection.rows.tolist() == [CONCEPTS[0], CONCEPTS[second]]


@pytest.mark.parametrize("name", FACTOR_DESCRIPTORS)
def test_the_whole_image_as_region_selects_every_factor(described: list[Description], name: str) -> None:
    """No factor lies outside of it."""
    whole, none = select_rows(described[0], name, WHOLE_IMAGE), select_rows(described[0], name)

    assert torch.equal(whole.rows, none.rows)
    assert not whole.fallback


@pytest.mark.parametrize("name", FACTOR_DESCRIPTORS)
def test_a_region_of_a_photograph_selects_some_of_the_rows(described: list[Description], name: str) -> None:
    """They are rows of the unrestricted selection, in its order."""
    everything = select_rows(described[0], name).rows

    selection = select_rows(described[0], name, Box(*MOTORBIKE))

    positions = [int((everything == row).all(dim=1).nonzero()[0]) for row in selection.rows]
    assert 0 < len(positions) <= RANK
    assert positions == sorted(positions)


@pytest.mark.parametrize("name", POOLED)
def test_a_region_on_stored_pooled_rows_is_refused(described: list[Description], name: str) -> None:
    """They are of the whole picture; the message names what can be asked instead."""
    with pytest.raises(RegionNotSupported, match=f"{name} does not use: ask with one of what, what-and-where") as no:
        select_rows(described[0], name, Box(0.0, 0.0, 0.5, 0.5))

    assert no.value.field == "region"


@pytest.mark.parametrize("name", POOLED)
def test_pooled_rows_are_selected_as_floats(described: list[Description], name: str) -> None:
    """The float16 that is kept is widened for the sums to come."""
    rows = select_rows(described[0], name).rows

    assert rows.dtype == torch.float32
    np.testing.assert_array_equal(rows.numpy(), described[0].pooled[name].astype(np.float32))


# --- one vector -------------------------------------------------------------------------------------------------


def test_rows_are_scaled_to_length_one_and_dead_ones_left_out() -> None:
    """(3, 4) becomes (0.6, 0.8), and a row of zeros is no row."""
    rows = unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]]))

    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


def test_the_global_descriptor_is_the_sum_of_unit_rows_at_length_one() -> None:
    """(5, 0) and (0, 1) weigh the same: their sum points halfway between."""
    vector = global_descriptor(torch.tensor([[5.0, 0.0], [0.0, 1.0]]), plain_whitener(2))

    np.testing.assert_allclose(vector, [0.5**0.5, 0.5**0.5], atol=1e-6)
    assert vector.dtype == np.float32


def test_rows_are_whitened_before_they_are_summed() -> None:
    """The mean is taken from each row: two rows lose it twice."""
    whitener = plain_whitener(2)
    whitener.mean[0] = 0.25

    vector = global_descriptor(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), whitener)

    np.testing.assert_allclose(vector, np.array([0.5, 1.0]) / np.hypot(0.5, 1.0), atol=1e-6)


def test_dead_factors_do_not_reach_the_whitener() -> None:
    """A row of zeros would add the negative mean."""
    whitener = plain_whitener(2)
    whitener.mean[0] = 0.25
    alive = torch.tensor([[1.0, 1.0]])

    vector = global_descriptor(torch.cat([alive, torch.zeros(3, 2)]), whitener)

    np.testing.assert_allclose(vector, global_descriptor(alive, whitener), atol=1e-6)


def test_no_live_row_gives_zeros() -> None:
    """There is no direction, and no not-a-number either."""
    vector = global_descriptor(torch.zeros(3, 2), plain_whitener(2))

    assert vector.tolist() == [0.0, 0.0]


def test_descriptors_are_those_of_factors_and_the_pooled_ones() -> None:
    """Six names, in the order in which they are listed."""
    assert DESCRIPTORS == ("what", "what-and-where", "mac", "r-mac", "crow", "gem")


def test_unknown_descriptors_are_told_the_names_there_are() -> None:
    """Known ones pass."""
    check_descriptors(DESCRIPTORS)

    with pytest.raises(UnknownName, match="descriptor 'sift' is unknown; there are: what, what-and-where, mac"):
        check_descriptors(["gem", "sift"])
