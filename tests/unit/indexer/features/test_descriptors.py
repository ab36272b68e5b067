"""Descriptors of both presets from what descriptions keep: by hand, or computed a second time in plain NumPy."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.conftest import MOTORBIKE
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box
from whatwhere.indexer.errors import RegionNotSupported, UnknownName
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import Description, QuantizedFactors
from whatwhere.indexer.features.descriptors import (
    Descriptor,
    expanded,
    find_descriptor,
    global_descriptor,
    training_rows,
    unit_rows,
)
from whatwhere.indexer.features.names import BASELINES, BEST_FIRST, DEFAULT_DESCRIPTORS, DESCRIPTORS, PRESETS, pooled_by
from whatwhere.indexer.features.nmf import Factors, quantize, restore
from whatwhere.indexer.features.pooling import interact, rmac_regions, rmac_rows
from whatwhere.indexer.features.regions import Area
from whatwhere.indexer.features.whitening import Whitener, WhitenerKey, find
from whatwhere.service.cli import options

OF_FACTORS = ("what", "what-and-where", "fused")
METHODS = [find_descriptor(name, preset) for preset in PRESETS for name in DESCRIPTORS]
HALF_LEFT = Box(0.0, 0.0, 0.5, 1.0)

each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.preset} {method.name}")
each_preset = pytest.mark.parametrize("preset", PRESETS)


def by_hand(where: list[list[list[int]]], what: list[list[int]]) -> Description:
    """Write a description from heatmaps [K][H][W] and concepts [K][C] in steps of 1."""
    maps = np.array(where, dtype=np.uint8)
    count, height, width = maps.shape
    ones = np.ones(count, dtype=np.float32)
    concepts = np.array(what, dtype=np.uint8)
    factors = QuantizedFactors(maps.reshape(count, -1).T, ones, concepts, ones, height, width)
    activations = (maps.reshape(count, -1).T.astype(np.float32) @ concepts).reshape(height, width, -1)
    return Description(factors, {"r-mac": rmac_rows(torch.from_numpy(activations)).half().numpy()})


def at_random(seed: int = 0, height: int = 5, width: int = 7, rank: int = 4, channels: int = 6) -> Description:
    """Return a description of an image that never was, with everything that is pooled."""
    random = torch.Generator().manual_seed(seed)
    where = torch.rand(height * width, rank, generator=random) ** 6
    factors = quantize(Factors(where, torch.rand(rank, channels, generator=random)), height, width)
    grid = torch.rand(height, width, channels, generator=random)
    rows = {name: torch.rand(1, channels, generator=random) for name in ("mac", "crow", "gem")}
    rows |= {"r-mac": rmac_rows(grid), "cells": torch.rand(40, channels, generator=random)}
    return Description(factors, {name: values.half().numpy() for name, values in rows.items()})


def plain_whitener(channels: int) -> Whitener:
    """Give a whitener that changes nothing."""
    mean, projection = np.zeros(channels, dtype=np.float32), np.eye(channels, dtype=np.float32)
    return Whitener(WhitenerKey("", "", "", ""), mean, projection, "")


def made_up_whitener(channels: int = 6, dimensions: int = 5, seed: int = 1) -> Whitener:
    """Give a whitener that changes everything."""
    random = np.random.default_rng(seed)
    mean = random.random(channels, dtype=np.float32) / 4
    return Whitener(WhitenerKey("", "", "", ""), mean, random.random((channels, dimensions), dtype=np.float32), "")


def of_length_one(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def ready_made(describer: Describer) -> dict[Descriptor, list[Whitener]]:
    """Give the ready-made whiteners of every method."""
    return {method: [find(describer.whitener_key(name)) for name in method.whiteners] for method in METHODS}


# --- names ------------------------------------------------------------------------------------------------------


def test_the_names_and_their_orders() -> None:
    """Those of factors first; the best as measured; what a new collection has."""
    assert DESCRIPTORS == ("what", "what-and-where", "fused", "mac", "r-mac", "crow", "gem")
    assert BASELINES == ("mac", "r-mac", "crow", "gem")
    assert BEST_FIRST[:3] == ("fused", "what-and-where", "what")
    assert sorted(BEST_FIRST) == sorted(DESCRIPTORS)
    assert DEFAULT_DESCRIPTORS == ("what", "what-and-where", "fused")
    assert PRESETS == ("default", "thesis")


def test_the_command_offers_the_names_there_are() -> None:
    """No descriptor and no preset is out of its reach."""
    assert [value.value for value in options.DescriptorName] == list(DESCRIPTORS)
    assert [value.value for value in options.Preset] == list(PRESETS)


@each_method
def test_a_method_knows_its_name_and_whether_it_uses_factors(method: Descriptor) -> None:
    """Baselines do not: what they see of a query has to be cropped."""
    assert find_descriptor(method.name, method.preset) == method
    assert method.uses_factors == (method.name in OF_FACTORS)
    assert sum(part.share for part in method.parts) == 1


def test_a_method_is_of_the_default_preset_unless_told() -> None:
    """The preset that measured best."""
    assert find_descriptor("what") == find_descriptor("what", "default") != find_descriptor("what", "thesis")


def test_an_unknown_descriptor_is_told_the_names_there_are() -> None:
    """The error names value and choice."""
    with pytest.raises(UnknownName, match="descriptor 'sift' is unknown; there are: what, what-and-where, fused, mac"):
        find_descriptor("sift")


def test_an_unknown_preset_is_told_the_names_there_are() -> None:
    """The error names value, choice and field."""
    with pytest.raises(UnknownName, match="preset 'best' is unknown; there are: default, thesis") as raised:
        find_descriptor("what", "best")

    assert raised.value.field == "preset"


# --- what methods need ------------------------------------------------------------------------------------------


@each_preset
def test_only_baselines_and_the_fused_need_more_than_factors(preset: str) -> None:
    """Each what it is made of, once, in the order asked for."""

    def needed(*names: str) -> tuple[str, ...]:
        return pooled_by(find_descriptor(name, preset) for name in names)

    assert needed("what", "what-and-where") == ()
    assert needed("fused") == ("r-mac",)
    assert needed("gem", "what", "fused", "r-mac", "gem") == ("gem", "r-mac")
    assert needed(*BASELINES) == BASELINES
    assert needed() == ()


def test_whiteners_are_trained_on_the_rows_that_measured_best() -> None:
    """Of the default preset on cells; of the thesis on the rows themselves; the fused has a second one, R-MAC's."""
    assert {name: find_descriptor(name).whiteners for name in OF_FACTORS} == {
        "what": ("cells",),
        "what-and-where": ("cells",),
        "fused": ("cells", "r-mac"),
    }
    assert {name: find_descriptor(name, "thesis").whiteners for name in OF_FACTORS} == {
        "what": ("what",),
        "what-and-where": ("what-and-where",),
        "fused": ("what-and-where", "r-mac"),
    }
    for name in BASELINES:
        assert find_descriptor(name).whiteners == find_descriptor(name, "thesis").whiteners == (name,)


@each_method
def test_every_whitener_can_be_trained(method: Descriptor) -> None:
    """From what a description keeps, on float rows of length 1."""
    for name in method.whiteners:
        rows = training_rows(name, at_random())

        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))


def test_training_rows_are_those_of_their_names() -> None:
    """V's rows, those after interaction, and what was pooled; each at length 1."""
    description = at_random()
    where, what = (torch.as_tensor(each) for each in (vars(restore(description.factors))).values())
    expected = {
        "what": what,
        "what-and-where": interact(where, what, 5, 7),
        **{name: torch.from_numpy(rows.astype(np.float32)) for name, rows in description.pooled.items()},
    }

    for name, rows in expected.items():
        lengths = np.linalg.norm(rows.numpy(), axis=1, keepdims=True)
        np.testing.assert_allclose(training_rows(name, description).numpy(), rows.numpy() / lengths, rtol=1e-5)


@pytest.mark.parametrize("name", ["what", "what-and-where", "cells"])
def test_nothing_is_trained_on_rows_without_length(name: str) -> None:
    """Dead factors and dark cells have no direction."""
    description = by_hand([[[5, 1]], [[0, 0]]], [[3, 4], [0, 0]])
    cells = np.array([[0, 0], [3, 4], [0, 0]], dtype=np.float16)

    rows = training_rows(name, Description(description.factors, {"cells": cells}))

    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8]]))


# --- one vector -------------------------------------------------------------------------------------------------


def test_rows_are_scaled_to_length_one_and_dead_ones_left_out() -> None:
    """(3, 4) becomes (0.6, 0.8), and a row of zeros is no row."""
    rows = unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]]))

    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


def test_the_global_descriptor_weighs_rows_by_their_length() -> None:
    """Rows of length 3 and 4 that stand at a right angle: their sum, of length 5, scaled to 1."""
    vector = global_descriptor(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), plain_whitener(2))

    np.testing.assert_allclose(vector, [0.6, 0.8], atol=1e-6)
    assert vector.dtype == np.float32


def test_rows_are_whitened_at_length_one_before_they_are_weighed() -> None:
    """The mean 1/4 is taken from the direction of each row, not from the row: 2 · (3/4, 0) + 1 · (-1/4, 1)."""
    whitener = plain_whitener(2)
    whitener.mean[0] = 0.25

    vector = global_descriptor(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), whitener)

    np.testing.assert_allclose(vector, np.array([1.25, 1.0]) / np.hypot(1.25, 1.0), atol=1e-6)


def test_the_scale_of_all_rows_does_not_matter() -> None:
    """Only how they weigh against each other."""
    rows = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))

    once, scaled = (global_descriptor(factor * rows, made_up_whitener()) for factor in (1, 20))

    np.testing.assert_allclose(once, scaled, atol=1e-6)


def test_dead_rows_do_not_reach_the_whitener() -> None:
    """A row of zeros would add the negative mean."""
    whitener = plain_whitener(2)
    whitener.mean[0] = 0.25
    alive = torch.tensor([[1.0, 1.0]])

    vector = global_descriptor(torch.cat([alive, torch.zeros(3, 2)]), whitener)

    np.testing.assert_allclose(vector, global_descriptor(alive, whitener), atol=1e-6)


@pytest.mark.parametrize("count", [0, 3])
def test_no_live_row_gives_zeros(count: int) -> None:
    """There is no direction, and no not-a-number either."""
    vector = global_descriptor(torch.zeros(count, 2), plain_whitener(2))

    assert vector.tolist() == [0.0, 0.0]


def test_an_expanded_query_is_the_mean_at_length_one() -> None:
    """(1, 0) with (0, 1) twice is (1, 2) / √5."""
    found = [np.array([0.0, 1.0], dtype=np.float32)] * 2

    vector = expanded(np.array([1.0, 0.0], dtype=np.float32), found)

    np.testing.assert_allclose(vector, np.array([1, 2]) / math.sqrt(5), atol=1e-6)
    assert vector.dtype == np.float32


def test_a_query_without_results_expands_to_itself() -> None:
    """An empty collection is no reason for another vector."""
    vector = np.array([0.6, 0.8], dtype=np.float32)

    np.testing.assert_allclose(expanded(vector, []), vector, atol=1e-7)
    assert expanded(np.zeros(2, dtype=np.float32), []).tolist() == [0, 0]  # of an image without factors: not NaN


# --- the preset of the thesis ------------------------------------------------------------------------------------

# Three heatmaps on 4 x 8 cells: left, left (the same place), and far right.
LEFT = [[8, 0, 0, 0, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0], [0] * 8, [0] * 8]
RIGHT = [row[::-1] for row in LEFT]
BOTH = [[left + right for left, right in zip(*rows, strict=True)] for rows in zip(LEFT, RIGHT, strict=True)]
A_THIRD = [[left + 2 * right for left, right in zip(*rows, strict=True)] for rows in zip(LEFT, RIGHT, strict=True)]
CONCEPTS = [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0]]
UNIT_CONCEPTS = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]


def test_the_thesis_sums_concepts_of_equal_weight() -> None:
    """Without a region all of them, each at length 1."""
    (selection,) = find_descriptor("what", "thesis").select(by_hand([LEFT, LEFT, RIGHT], CONCEPTS))

    assert selection.rows.tolist() == UNIT_CONCEPTS
    assert (selection.kept, selection.fallback) == (3, False)


def test_the_what_of_the_thesis_points_between_its_concepts() -> None:
    """Lengths of concepts and of heatmaps do not count: (1, 1, 1, 0) / √3."""
    vector = find_descriptor("what", "thesis").describe(by_hand([LEFT, LEFT, RIGHT], CONCEPTS), [plain_whitener(4)])

    np.testing.assert_allclose(vector, np.array([1, 1, 1, 0]) / math.sqrt(3), atol=1e-6)


def test_the_what_and_where_of_the_thesis_is_the_concepts_after_interaction() -> None:
    """Factors in one place share their concepts 1 and 2, one far away almost keeps its own."""
    (selection,) = find_descriptor("what-and-where", "thesis").select(by_hand([LEFT, LEFT, RIGHT], CONCEPTS))

    shared = [1 / math.sqrt(5), 2 / math.sqrt(5), 0.0, 0.0]
    torch.testing.assert_close(selection.rows, torch.tensor([shared, shared, UNIT_CONCEPTS[2]]), atol=0.02, rtol=0)
    assert selection.kept == 3


def test_a_region_of_the_thesis_selects_the_concepts_inside() -> None:
    """Those with more than three quarters of their heatmap in the box, whole; the others not at all."""
    (selection,) = find_descriptor("what", "thesis").select(
        by_hand([LEFT, RIGHT, LEFT, BOTH], [*CONCEPTS, [1] * 4]), HALF_LEFT
    )

    assert selection.rows.tolist() == [UNIT_CONCEPTS[0], UNIT_CONCEPTS[2]]
    assert (selection.kept, selection.fallback) == (2, False)


def test_factors_outside_the_region_take_part_in_the_interaction() -> None:
    """A factor half inside, which no region of the left keeps, still shares its concept with the left one."""
    method, description = find_descriptor("what-and-where", "thesis"), by_hand([LEFT, BOTH], CONCEPTS[:2])
    (unrestricted,) = method.select(description)

    (selection,) = method.select(description, HALF_LEFT)

    assert selection.rows.shape == (1, 4)
    torch.testing.assert_close(selection.rows, unrestricted.rows[:1])
    assert selection.rows[0, 1] > selection.rows[0, 0] > 0


@each_preset
@pytest.mark.parametrize("name", OF_FACTORS)
def test_a_region_without_a_factor_falls_back_to_the_nearest_one(name: str, preset: str) -> None:
    """Of factors in the right, one lies in the left with a third of its heatmap: it alone stays, and is told of."""
    method, description = find_descriptor(name, preset), by_hand([RIGHT, A_THIRD, RIGHT], CONCEPTS)

    selection = method.select(description, HALF_LEFT)[0]

    alive = selection.rows[selection.rows.norm(dim=1) > 0]
    assert (selection.kept, selection.fallback) == (1, True)
    assert alive[0].argmax() == 1 or (name, preset) not in {("what", "thesis"), ("what", "default")}
    assert alive[0, 1] > 0
    assert len(alive) == 1 or (name, preset) in {("what-and-where", "default"), ("fused", "default")}


@each_preset
def test_a_region_that_no_heatmap_reaches_still_has_a_factor(preset: str) -> None:
    """Nothing is nearer than anything else: one concept is taken, at its full weight."""
    method, description = find_descriptor("what", preset), by_hand([LEFT, RIGHT], CONCEPTS[:2])
    (everything,) = method.select(description)

    (selection,) = method.select(description, Box(0.25, 0.5, 0.75, 1.0))

    assert (selection.kept, selection.fallback) == (1, True)
    assert torch.equal(selection.rows, everything.rows[:1])


@each_preset
@pytest.mark.parametrize("region", [Box(0.0, 0.0, 1.0, 0.5), Box(0.0, 0.0, 0.125, 1.0)])
def test_a_regions_sides_are_not_mixed_up(region: Box, preset: str) -> None:
    """On a grid that is not square, a band above and a strip at the left hold the same corner."""
    lower = LEFT[::-1]

    (selection,) = find_descriptor("what", preset).select(by_hand([LEFT, RIGHT, lower], CONCEPTS), region)

    second = 1 if region.x_max == 1.0 else 2
    alive = selection.rows[selection.rows.norm(dim=1) > 0]
    assert (alive > 0).int().tolist() == [[int(value > 0) for value in CONCEPTS[number]] for number in (0, second)]


@each_preset
@pytest.mark.parametrize("name", OF_FACTORS)
def test_the_whole_image_as_region_selects_everything(described: list[Description], name: str, preset: str) -> None:
    """No factor and no window lies outside of it."""
    method = find_descriptor(name, preset)

    whole, none = method.select(described[0], WHOLE_IMAGE), method.select(described[0])

    assert len(whole) == len(none) == len(method.parts)
    for one, other in zip(whole, none, strict=True):
        torch.testing.assert_close(one.rows, other.rows)
        assert (one.kept, one.fallback) == (other.kept, False)


def test_a_region_of_a_photograph_selects_some_of_the_rows(described: list[Description]) -> None:
    """By the thesis they are rows of the unrestricted selection, in its order."""
    method = find_descriptor("what", "thesis")
    everything = method.select(described[0])[0].rows

    (selection,) = method.select(described[0], Box(*MOTORBIKE))

    positions = [int((everything == row).all(dim=1).nonzero()[0]) for row in selection.rows]
    assert 0 < len(positions) == selection.kept <= 6
    assert positions == sorted(positions)


# --- the default preset -------------------------------------------------------------------------------------------


def test_what_sums_concepts_by_energy_and_centrality() -> None:
    """Three cells side by side, calculated by hand, whitened by a mean of 1/4 in the first channel.

    Energies are 5 · 2 and 1 · 4; the first factor lies with 3/7 on the left cell and 4/7 in the centre.
    """
    outer = math.exp(-((4 / 3) ** 2) / 2)
    first, second = (3 * outer + 4) / 7, 0.4 * outer
    whitener = plain_whitener(2)
    whitener.mean[0] = 0.25

    vector = find_descriptor("what").describe(by_hand([[[3, 4, 0]], [[0, 0, 1]]], [[2, 0], [0, 4]]), [whitener])

    expected = of_length_one(np.array([0.75 * first - 0.25 * second, second]))
    np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_the_rows_of_what_have_their_weight_as_length() -> None:
    """As above, with a dead factor that has no row to speak of but is counted, as it was kept."""
    outer = math.exp(-((4 / 3) ** 2) / 2)
    description = by_hand([[[3, 4, 0]], [[0, 0, 1]], [[0, 0, 0]]], [[2, 0], [0, 4], [0, 0]])

    (selection,) = find_descriptor("what").select(description)

    lengths = torch.tensor([(3 * outer + 4) / 7, 0.4 * outer, 0.0])
    torch.testing.assert_close(selection.rows.norm(dim=1), lengths)
    assert selection.kept == 3


def test_a_region_fades_concepts_by_the_square_of_their_share() -> None:
    """All inside: as without a region; half inside: a quarter of the weight; outside: none. One of three is kept."""
    method, description = find_descriptor("what"), by_hand([LEFT, BOTH, RIGHT], CONCEPTS)
    (everything,) = method.select(description)

    (selection,) = method.select(description, HALF_LEFT)

    torch.testing.assert_close(selection.rows, everything.rows * torch.tensor([[1.0], [0.25], [0.0]]))
    assert (selection.kept, selection.fallback) == (1, False)


def test_the_only_factors_near_a_region_fade_but_keep_their_direction() -> None:
    """A third inside, and no other: the vector is that of the concept alone."""
    method, description = find_descriptor("what"), by_hand([RIGHT, A_THIRD], CONCEPTS[:2])

    vector = method.describe(description, [plain_whitener(4)], HALF_LEFT)

    np.testing.assert_allclose(vector, UNIT_CONCEPTS[1], atol=1e-6)


def shares_in(where: NDArray[np.float64], height: int, width: int, box: Box) -> NDArray[np.float64]:
    """Return the share of each heatmap's mass in a box along the borders of cells."""
    rows = slice(round(box.y_min * height), round(box.y_max * height))
    columns = slice(round(box.x_min * width), round(box.x_max * width))
    inside = where.reshape(height, width, -1)[rows, columns].sum(axis=(0, 1))
    return np.asarray(inside / where.sum(axis=0))


def computed_again(description: Description, whitener: Whitener, box: Box | None) -> NDArray[np.float64]:
    """Compute what-and-where of the default preset in NumPy and float64; the box along the borders of cells."""
    stored = description.factors
    where = stored.where * stored.where_scale.astype(np.float64)
    what = stored.what * stored.what_scale.astype(np.float64)[:, np.newaxis]
    height, width = stored.height, stored.width
    y, x = np.mgrid[:height, :width]
    squares = ((x + 0.5) / width - 0.5) ** 2 + ((y + 0.5) / height - 0.5) ** 2
    prior = np.exp(-squares / (2 * 0.25**2)).ravel()
    energy = np.array([np.linalg.norm(np.outer(where[:, k], what[k])) for k in range(len(what))])
    centrality = np.array([np.average(prior, weights=where[:, k]) for k in range(len(what))])
    weights = energy / energy.max() * centrality
    maps = (where @ what).reshape(height, width, -1)
    if box is not None:
        shares = shares_in(where, height, width, box)
        weights = weights * shares**2
        maps = maps[
            round(box.y_min * height) : round(box.y_max * height), round(box.x_min * width) : round(box.x_max * width)
        ]
    parts = [maps] + [maps[t : t + side, left : left + side] for t, left, side in rmac_regions(*maps.shape[:2])]
    windows = np.array([part.max(axis=(0, 1)) for part in parts if part.any()])

    def summed(rows: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(by / by.sum() @ ((units - whitener.mean) @ whitener.projection))

    return of_length_one(summed(what, weights) + summed(windows, np.ones(len(windows))))


@pytest.mark.parametrize("box", [None, Box(0, 0, 3 / 7, 1), Box(1 / 7, 1 / 5, 6 / 7, 4 / 5), Box(4 / 7, 0, 1, 2 / 5)])
@pytest.mark.parametrize("seed", range(4))
def test_what_and_where_is_what_numpy_computes(seed: int, box: Box | None) -> None:
    """Weighted concepts and maxima of U V over windows, both of total weight 1; with a region those of the region."""
    description, whitener = at_random(seed), made_up_whitener()

    vector = find_descriptor("what-and-where").describe(description, [whitener], box)

    np.testing.assert_allclose(vector, computed_again(description, whitener, box), atol=1e-5)


def test_concepts_and_windows_have_the_same_total_weight() -> None:
    """Concepts in the proportions of `what`, windows all alike."""
    description = at_random()
    (concepts,) = find_descriptor("what").select(description)

    (selection,) = find_descriptor("what-and-where").select(description)

    lengths = selection.rows.norm(dim=1)
    assert lengths[:4].sum() == pytest.approx(1, abs=1e-6)
    assert lengths[4:].sum() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(selection.rows[:4], concepts.rows / concepts.rows.norm(dim=1).sum())
    torch.testing.assert_close(lengths[4:], torch.full((len(lengths) - 4,), 1 / (len(lengths) - 4)))
    assert selection.kept == concepts.kept == 4


def test_windows_are_those_of_the_cells_that_the_region_touches() -> None:
    """The right factor's concept is in windows of the whole picture, and in none of the left half or a bit more."""
    method, description = find_descriptor("what-and-where"), by_hand([LEFT, RIGHT], CONCEPTS[:2])
    (whole,) = method.select(description)

    (left,) = method.select(description, Box(0.0, 0.0, 0.55, 1.0))

    assert (whole.rows[2:, 1] > 0).any()
    assert (left.kept, left.fallback) == (1, False)
    assert left.rows[:, 1].tolist() == [0.0] * len(left.rows)
    assert left.rows[:2].norm(dim=1).tolist() == pytest.approx([1, 0])
    assert len(left.rows) == 2 + 1 + len(rmac_regions(4, 5))


def test_windows_see_all_that_lies_in_the_cells() -> None:
    """A factor half inside fades to a quarter among the concepts, not where it is seen in the cells inside."""
    method, description = find_descriptor("what-and-where"), by_hand([LEFT, BOTH], CONCEPTS[:2])
    weights = find_descriptor("what").select(description)[0].rows.norm(dim=1) * torch.tensor([1, 0.25])

    (selection,) = method.select(description, HALF_LEFT)

    lengths = selection.rows.norm(dim=1)
    torch.testing.assert_close(lengths[:2], weights / weights.sum())
    count = 1 + len(rmac_regions(4, 4))
    lit = selection.rows[2:][lengths[2:] > 0]
    assert len(selection.rows) == 2 + count
    # on the cells of the left half both maps are LEFT: maxima of 8 · (1, 2)
    torch.testing.assert_close(
        lit / lit.norm(dim=1, keepdim=True), torch.tensor([[1.0, 2.0, 0, 0]] * len(lit)) / 5**0.5
    )


def test_a_region_without_a_factor_still_has_its_windows() -> None:
    """The nearest factor's concept stands beside the maxima of the cells touched, at equal total weight."""
    (selection,) = find_descriptor("what-and-where").select(by_hand([RIGHT, A_THIRD], CONCEPTS[:2]), HALF_LEFT)

    assert (selection.kept, selection.fallback) == (1, True)
    assert selection.rows[:2].tolist() == [[0.0] * 4, pytest.approx([0, 1, 0, 0])]
    assert selection.rows[2:].norm(dim=1).sum() == pytest.approx(1)
    assert selection.rows[2:, 0].tolist() == [0.0] * (len(selection.rows) - 2)


# --- fused --------------------------------------------------------------------------------------------------------


@each_preset
@pytest.mark.parametrize("region", [None, HALF_LEFT])
def test_the_fused_is_two_parts_of_equal_weight(preset: str, region: Box | None) -> None:
    """What-and-where of the same region beside R-MAC, each of squared length 1/2."""
    description, whiteners = at_random(), [made_up_whitener(dimensions=5), made_up_whitener(dimensions=3, seed=2)]
    first = find_descriptor("what-and-where", preset).describe(description, whiteners[:1], region)
    second = global_descriptor(rmac_rows_in(description, region), whiteners[1])

    vector = find_descriptor("fused", preset).describe(description, whiteners, region)

    assert vector.shape == (8,)
    assert (vector[:5] @ vector[:5], vector[5:] @ vector[5:]) == pytest.approx((0.5, 0.5), abs=1e-6)
    np.testing.assert_allclose(vector, np.concatenate([first, second]) / math.sqrt(2), atol=1e-6)


def rmac_rows_in(description: Description, region: Box | None) -> Tensor:
    """Choose R-MAC's rows one by one: windows with more than three quarters of their area in the left half."""
    rows = torch.from_numpy(description.pooled["r-mac"].astype(np.float32))
    height, width = description.factors.height, description.factors.width
    windows = [(0, width), *((left, side) for _, left, side in rmac_regions(height, width))]
    shares = [max(0.0, min(left + side, width / 2) - left) / side for left, side in windows]
    kept = [number for number, share in enumerate(shares) if region is None or share > 0.75]
    assert 0 < len(kept) < len(rows) or region is None
    return unit_rows(rows[kept])


def test_the_fused_scores_by_the_mean_of_both_parts() -> None:
    """The cosine of two fused vectors is half that of what-and-where and half that of R-MAC."""
    pair, whiteners = [at_random(0), at_random(1)], [made_up_whitener(), made_up_whitener(seed=2)]

    def cosine(name: str, *through: Whitener) -> float:
        one, other = (find_descriptor(name).describe(each, through) for each in pair)
        return float(one @ other)

    fused = cosine("fused", *whiteners)

    assert fused == pytest.approx(
        (cosine("what-and-where", whiteners[0]) + cosine("r-mac", whiteners[1])) / 2, abs=1e-6
    )


def test_the_fused_counts_the_factors_that_a_region_keeps() -> None:
    """Windows are not factors, and the nearest window is no fallback to tell of."""
    selections = find_descriptor("fused").select(by_hand([LEFT, RIGHT], CONCEPTS[:2]), Box(0.0, 0.0, 0.125, 0.25))

    assert [(selection.kept, selection.fallback) for selection in selections] == [(1, True), (0, False)]
    assert len(selections[1].rows) == 1


def test_windows_without_activations_do_not_shift_the_others() -> None:
    """In a picture that is lit in one corner only, a region there finds its window, one elsewhere has none."""
    description = by_hand([LEFT, LEFT], CONCEPTS[:2])
    method, whiteners = find_descriptor("fused"), [plain_whitener(4), plain_whitener(4)]

    lit = method.select(description, Box(0.0, 0.0, 0.5, 0.5))[1].rows
    dark = method.select(description, Box(0.5, 0.5, 1.0, 1.0))[1].rows
    vector = method.describe(description, whiteners, Box(0.5, 0.5, 1.0, 1.0))

    assert (lit.norm(dim=1) - 1).abs().max() < 1e-3
    assert len(lit) >= 1
    assert len(dark) == 0
    assert np.isfinite(vector).all()


# --- baselines ----------------------------------------------------------------------------------------------------


@each_preset
@pytest.mark.parametrize("name", BASELINES)
def test_a_region_on_stored_pooled_rows_is_refused(described: list[Description], name: str, preset: str) -> None:
    """They are of the whole picture; the message names what can be asked instead."""
    with pytest.raises(
        RegionNotSupported, match=f"{name} does not use: use one of what, what-and-where, fused, or upload"
    ) as no:
        find_descriptor(name, preset).select(described[0], Box(0.0, 0.0, 0.5, 0.5))

    assert no.value.field == "region"


@each_preset
@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("kind", [np.uint8, np.float16])
def test_pooled_rows_are_selected_as_floats_of_length_one(
    described: list[Description], name: str, preset: str, kind: type[np.generic]
) -> None:
    """The bytes that are kept, or the float16 of older collections; no factor is kept, for none is used."""
    pooled = described[0].pooled[name].astype(kind)

    (selection,) = find_descriptor(name, preset).select(Description(described[0].factors, {name: pooled}))

    kept = pooled.astype(np.float32)
    assert selection.rows.dtype == torch.float32
    np.testing.assert_allclose(selection.rows.numpy(), kept / np.linalg.norm(kept, axis=1, keepdims=True), rtol=1e-5)
    assert (selection.kept, selection.fallback) == (0, False)


# --- photographs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
def test_descriptors_do_not_depend_on_the_batch(
    describer: Describer,
    described: list[Description],
    pictures: list[NDArray[np.uint8]],
    ready_made: dict[Descriptor, list[Whitener]],
    batch: int,
) -> None:
    """Alone, or three together and one alone, or all together: a cosine of 0.9999 or more for every descriptor."""
    split = [pictures[start : start + batch] for start in range(0, len(pictures), batch)]

    apart = [description for part in split for description in describer.describe(part)]

    for method, whiteners in ready_made.items():
        vector = partial(method.describe, whiteners=whiteners)
        for one, other in zip(apart, described, strict=True):
            assert vector(one) @ vector(other) >= 0.9999


@each_method
def test_vectors_have_length_one_and_as_many_dimensions_as_the_whiteners(
    described: list[Description], ready_made: dict[Descriptor, list[Whitener]], method: Descriptor
) -> None:
    """512 or less for each part."""
    whiteners = ready_made[method]

    vectors: Sequence[NDArray[np.float32]] = [method.describe(each, whiteners) for each in described]

    for vector in vectors:
        assert vector.dtype == np.float32
        assert vector.shape == (sum(whitener.dimensions for whitener in whiteners),)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@each_method
def test_the_other_view_of_a_motorbike_is_nearer_than_coffee_and_a_cat(
    described: list[Description], ready_made: dict[Descriptor, list[Whitener]], method: Descriptor
) -> None:
    """The descriptors do what they are for."""
    vectors = np.stack([method.describe(each, ready_made[method]) for each in described])

    scores = vectors[1:] @ vectors[0]

    assert scores[0] > scores[1:].max() + 0.2


@each_method
def test_a_black_picture_is_described_without_infinities(
    describer: Describer, ready_made: dict[Descriptor, list[Whitener]], method: Descriptor
) -> None:
    """Few activations are no reason for a not-a-number."""
    description = describer.describe([np.zeros((64, 64, 3), dtype=np.uint8)])[0]

    vector = method.describe(description, ready_made[method])

    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["what", "what-and-where"])
def test_a_region_that_hardly_holds_anything_is_still_a_vector(name: str) -> None:
    """A ten-thousandth of a heatmap inside is little, but it is all there is to ask with."""
    where = torch.full((16, 2), 1.0)
    where[0] = torch.tensor([0.05, 0.0])
    description = Description(quantize(Factors(where * 20, torch.tensor([[1.0, 0.0], [0.0, 1.0]])), 4, 4))
    corner = Box(0.0, 0.0, 0.01, 0.01)

    vector = find_descriptor(name).describe(description, [plain_whitener(2)], corner)

    assert np.linalg.norm(vector) == pytest.approx(1)
    assert vector[0] > 0.99


# --- chosen factors -----------------------------------------------------------------------------------------------


@each_preset
def test_chosen_concepts_are_summed_alone(preset: str) -> None:
    """As if the picture had no others: of (1, 0, 0, 0), (0, 1, 0, 0) and (0, 0, 1, 0) the first and the last."""
    method, description = find_descriptor("what", preset), by_hand([LEFT, LEFT, LEFT], CONCEPTS)

    vector = method.vector(method.select(description, factors={0, 2}), [plain_whitener(4)])

    assert vector[[1, 3]].tolist() == [0.0, 0.0]
    assert min(vector[0], vector[2]) > 0
    assert vector @ vector == pytest.approx(1)


def test_a_region_chooses_among_the_chosen() -> None:
    """The factor inside the region that was not asked for is out; the one asked for outside it is what it falls to."""
    method, description = find_descriptor("what", "thesis"), by_hand([LEFT, RIGHT, A_THIRD], CONCEPTS)

    (selection,) = method.select(description, HALF_LEFT, {1, 2})

    assert selection.rows.tolist() == [UNIT_CONCEPTS[2]]
    assert (selection.kept, selection.fallback) == (1, True)


def test_all_concepts_chosen_is_none_chosen() -> None:
    """In the default preset with and without a region."""
    method, description = find_descriptor("what-and-where"), by_hand([LEFT, BOTH, RIGHT], CONCEPTS)

    for region in (None, HALF_LEFT):
        (chosen,), (everything,) = method.select(description, region, range(3)), method.select(description, region)

        torch.testing.assert_close(chosen.rows, everything.rows)


def test_windows_see_only_the_chosen_factors() -> None:
    """Their maxima are of the product of the chosen factors: no channel of another concept is lit."""
    (selection,) = find_descriptor("what-and-where").select(by_hand([LEFT, BOTH, RIGHT], CONCEPTS), factors={1})

    assert selection.rows[:, [0, 2, 3]].abs().max() == 0
    assert selection.rows[3:, 1].max() > 0


def test_of_the_fused_the_windows_of_activations_stand_aside() -> None:
    """They belong to no factor: with a stored vector the product is the cosine of the other part alone."""
    query, stored = at_random(0), at_random(1)
    whiteners = [made_up_whitener(dimensions=5), made_up_whitener(dimensions=3, seed=2)]
    fused, part = find_descriptor("fused"), find_descriptor("what-and-where")
    alone = part.vector(part.select(query, factors={0, 1}), whiteners[:1])
    expected = float(alone @ part.describe(stored, whiteners[:1]))

    vector = fused.vector(fused.select(query, factors={0, 1}), whiteners)

    assert vector[5:].tolist() == [0.0] * 3
    assert float(vector @ fused.describe(stored, whiteners)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_has_no_concepts_to_choose(name: str, described: list[Description]) -> None:
    """The error names the descriptors that have."""
    with pytest.raises(RegionNotSupported, match="what-and-where") as refused:
        find_descriptor(name).select(described[0], factors={0})

    assert refused.value.field == "concepts"


def test_several_boxes_keep_what_lies_in_any_of_them() -> None:
    """A factor at both ends lies in neither half by itself, but in both together."""
    method, description = find_descriptor("what", "thesis"), by_hand([LEFT, BOTH], CONCEPTS[:2])
    ends = Area((Box(0.0, 0.0, 0.25, 1.0), Box(0.75, 0.0, 1.0, 1.0)))

    (apart,), (together,) = method.select(description, ends.boxes[0]), method.select(description, ends)

    assert apart.rows.tolist() == [UNIT_CONCEPTS[0]]
    assert together.rows.tolist() == UNIT_CONCEPTS[:2]


def test_a_mask_keeps_what_it_is_light_on() -> None:
    """White on the right half."""
    mask = np.zeros((2, 4), dtype=np.uint8)
    mask[:, 2:] = 255

    (selection,) = find_descriptor("what", "thesis").select(by_hand([LEFT, RIGHT], CONCEPTS[:2]), Area(mask=mask))

    assert selection.rows.tolist() == [UNIT_CONCEPTS[1]]
