"""Descriptors on small cases that were calculated by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.features.pooling import (
    cell_rows,
    center_prior,
    crow_channel_weights,
    crow_rows,
    crow_spatial_weights,
    factor_weights,
    gem_rows,
    interact,
    mac_rows,
    mass_inside,
    rmac_regions,
    rmac_rows,
    select_inside,
    squares_inside,
)
from whatwhere.indexer.features.regions import coverage


def grid(*rows: list[list[float]]) -> Tensor:
    """Write activations [H, W, C] as rows of cells of channels."""
    return torch.tensor(rows)


def heatmap(*rows: list[float]) -> Tensor:
    """Write one heatmap as its rows: U [H·W, 1]."""
    return torch.tensor(rows).reshape(-1, 1)


# --- CroW -------------------------------------------------------------------------------------------------------


def test_rare_channels_weigh_more() -> None:
    """Shares of positive cells of 1, 1/2 and 0 sum to 1.5: log 1.5, log 3, and 0 for the dead channel."""
    activations = grid([[1.0, 9.0, 0.0], [2.0, 0.0, 0.0]], [[3.0, 0.0, 0.0], [0.5, 0.1, 0.0]])

    weights = crow_channel_weights(activations)

    torch.testing.assert_close(weights, torch.tensor([math.log(1.5), math.log(3), 0.0]))


def test_strong_cells_weigh_more() -> None:
    """Sums over channels of 3 and 4 have length 5: √(3/5) and √(4/5)."""
    activations = grid([[1.0, 2.0], [4.0, 0.0]])

    weights = crow_spatial_weights(activations)

    torch.testing.assert_close(weights, torch.tensor([[math.sqrt(0.6), math.sqrt(0.8)]]))


def test_crow_sums_cells_with_both_weights() -> None:
    """Each of two channels is positive in one of two cells: log 2 · √(3/5) · 3 and log 2 · √(4/5) · 4."""
    activations = grid([[3.0, 0.0], [0.0, 4.0]])

    rows = crow_rows(activations)

    expected = math.log(2) * torch.tensor([[3 * math.sqrt(0.6), 4 * math.sqrt(0.8)]])
    torch.testing.assert_close(rows, expected)


@pytest.mark.parametrize("rows_of", [mac_rows, gem_rows, crow_rows, rmac_rows])
def test_a_black_picture_gives_no_infinities(rows_of: object) -> None:
    """Nothing is divided by the activations' missing length."""
    assert callable(rows_of)

    rows = rows_of(torch.zeros(4, 5, 3))

    assert rows.isfinite().all()
    assert rows.abs().max() < 1e-5


# --- MAC and GeM ------------------------------------------------------------------------------------------------


def test_mac_is_the_maximum_of_each_channel() -> None:
    """The maxima may come from different cells."""
    activations = grid([[1.0, 5.0], [2.0, 0.0]], [[3.0, 4.0], [0.0, 1.0]])

    rows = mac_rows(activations)

    assert rows.tolist() == [[3.0, 5.0]]


def test_gem_of_power_one_is_the_mean() -> None:
    """The mean over cells, for each channel."""
    activations = grid([[1.0, 5.0], [2.0, 2.0]], [[3.0, 4.0], [2.0, 1.0]])

    rows = gem_rows(activations, power=1.0)

    torch.testing.assert_close(rows, torch.tensor([[2.0, 3.0]]))


def test_gem_is_the_cube_root_of_the_mean_cube() -> None:
    """Of 1 and 3, ∛((1 + 27) / 2) = ∛14."""
    activations = grid([[1.0], [3.0]])

    rows = gem_rows(activations)

    torch.testing.assert_close(rows, torch.tensor([[14 ** (1 / 3)]]))


def test_gem_of_a_large_power_approaches_the_maximum() -> None:
    """Between the mean and the maximum, nearer to the latter as the power grows."""
    activations = grid([[1.0], [3.0]])

    values = [float(gem_rows(activations, power)) for power in (1.0, 3.0, 20.0)]

    assert values == sorted(values)
    assert 2.85 < values[-1] < 3.0


# --- R-MAC ------------------------------------------------------------------------------------------------------


def test_a_square_is_cut_by_halves_that_overlap() -> None:
    """Of 6 cells: one square of 6, four of 2·6 // 3 = 4, nine of 2·6 // 4 = 3 at 0, ⌊1.5⌋ and 3."""
    regions = rmac_regions(6, 6)

    second = [(top, left, 4) for top in (0, 2) for left in (0, 2)]
    third = [(top, left, 3) for top in (0, 1, 3) for left in (0, 1, 3)]
    assert regions == [(0, 0, 6), *second, *third]


def test_a_wide_picture_has_one_square_more_along_it() -> None:
    """4 x 6 overlaps by half with two squares, by 3/4 with three: two are nearer to 40 %."""
    regions = rmac_regions(4, 6)

    first = [(0, left, 4) for left in (0, 2)]
    second = [(top, left, 2) for top in (0, 2) for left in (0, 2, 4)]
    third = [(top, left, 2) for top in (0, 1, 2) for left in (0, 1, 2, 4)]
    assert regions == first + second + third


def test_a_very_wide_picture_has_more_squares_along_it() -> None:
    """4 x 11 needs 1 + 7 / (4 · 0.6) = 3.9 squares to overlap by 40 %: four."""
    regions = rmac_regions(4, 11, levels=1)

    assert regions == [(0, 0, 4), (0, 2, 4), (0, 4, 4), (0, 7, 4)]


@pytest.mark.parametrize(("height", "width"), [(4, 6), (4, 11), (16, 21), (3, 64), (1, 9)])
def test_a_tall_picture_is_a_wide_one_turned(height: int, width: int) -> None:
    """Top and left change places."""
    turned = [(left, top, side) for top, left, side in rmac_regions(height, width)]

    assert sorted(rmac_regions(width, height)) == sorted(turned)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 4))
def test_squares_lie_inside_and_reach_all_borders(height: int, width: int, levels: int) -> None:
    """No square leaves the map, and the first level covers it from border to border."""
    regions = rmac_regions(height, width, levels)

    assert all(top >= 0 and left >= 0 and side > 0 for top, left, side in regions)
    assert max(top + side for top, _, side in regions) == height
    assert max(left + side for _, left, side in regions) == width
    assert min(top for top, _, _ in regions) == min(left for _, left, _ in regions) == 0


def test_squares_too_small_for_a_cell_are_left_out() -> None:
    """One cell has one square: 2 // 3 of a cell is none."""
    assert rmac_regions(1, 1) == [(0, 0, 1)]


def test_rmac_rows_are_the_whole_and_the_squares_at_length_one() -> None:
    """Of 2 x 2 cells: the whole, the square of 2, and four of 1, each divided by its length."""
    activations = grid([[3.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [0.0, 4.0]])

    rows = rmac_rows(activations, levels=2)

    half = math.sqrt(0.5)
    expected = [[0.6, 0.8], [0.6, 0.8], [1.0, 0.0], [0.0, 1.0], [half, half], [0.0, 1.0]]
    torch.testing.assert_close(rows, torch.tensor(expected))


def test_rmac_has_three_levels() -> None:
    """The whole and 1 + 4 + 9 squares."""
    assert len(rmac_rows(torch.rand(6, 6, 4))) == 15


# --- cells ------------------------------------------------------------------------------------------------------


def test_cells_come_evenly_spaced_with_their_channel_weights() -> None:
    """Of four cells the first, the second (half way, rounded down) and the last; log 5/4 and log 5 weigh the channels.

    Shares of positive cells of 1 and 1/4 sum to 5/4.
    """
    activations = grid([[1.0, 0.0], [2.0, 0.0]], [[3.0, 0.0], [4.0, 5.0]])

    rows = cell_rows(activations, 3)

    common, rare = math.log(1.25), math.log(5)
    torch.testing.assert_close(rows, torch.tensor([[common, 0.0], [2 * common, 0.0], [4 * common, 5 * rare]]))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 4), (5, 8), (16, 21)])
def test_there_are_always_forty_cells(height: int, width: int) -> None:
    """In reading order from the first to the last; of fewer than forty some are taken again, none is left out."""
    numbers = torch.arange(1.0, height * width + 1).reshape(height, width, 1)
    activations = torch.cat([numbers, torch.eye(height * width)[0].reshape(height, width, 1)], dim=2)

    rows = cell_rows(activations)[:, 0] / crow_channel_weights(activations)[0].clamp_min(1e-6)

    taken = rows.round().int().tolist()
    assert len(taken) == 40
    assert taken == sorted(taken)
    assert (taken[0], taken[-1]) == (1, height * width) or height * width == 1
    assert len(set(taken)) == min(40, height * width) or height * width == 1


# --- interaction ------------------------------------------------------------------------------------------------


def test_a_single_factor_keeps_its_concept() -> None:
    """U'ᵀU' is 1."""
    what = torch.tensor([[1.0, 2.0, 3.0]])

    rows = interact(heatmap([0.0, 1.0], [2.0, 0.0], [0.0, 0.0]), what, 3, 2)

    torch.testing.assert_close(rows, what)


def test_factors_in_the_same_place_share_their_concepts() -> None:
    """Two equal heatmaps: both rows become the sum, whatever the heatmaps' strengths."""
    where = torch.tensor([[0.0, 0.0], [1.0, 5.0], [2.0, 10.0], [0.0, 0.0]])
    what = torch.tensor([[1.0, 0.0], [0.0, 4.0]])

    rows = interact(where, what, 2, 2)

    torch.testing.assert_close(rows, torch.tensor([[1.0, 4.0], [1.0, 4.0]]))


@pytest.mark.parametrize(("height", "width"), [(3, 40), (40, 3)])
def test_factors_further_apart_than_two_kernels_do_not_meet(height: int, width: int) -> None:
    """Blurred by 6 cells each, heatmaps 20 cells apart do not overlap."""
    where = torch.zeros(height, width, 2)
    where[0, 0, 0] = 1
    where[(0, 20) if width > height else (20, 0)][1] = 1
    what = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    rows = interact(where.reshape(-1, 2), what, height, width)

    torch.testing.assert_close(rows, what)


@pytest.mark.parametrize("offset", [(0, 1), (1, 0), (0, 3), (3, 0), (2, 2)])
def test_neighbors_share_by_a_gaussian_of_variance_two(offset: tuple[int, int]) -> None:
    """Two Gaussians of variance σ² = 2 at distance d overlap by exp(-d² / 4σ²), in either direction."""
    height, width = 21, 29
    where = torch.zeros(height, width, 2, dtype=torch.float64)
    where[10, 14, 0] = 1
    where[10 + offset[0], 14 + offset[1], 1] = 1

    rows = interact(where.reshape(-1, 2), torch.eye(2, dtype=torch.float64), height, width)

    overlap = math.exp(-(offset[0] ** 2 + offset[1] ** 2) / 8)
    expected = torch.tensor([[1.0, overlap], [overlap, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-3)


def test_the_kernel_ends_after_six_cells() -> None:
    """Point heatmaps 13 cells apart in one row share nothing at all, those 12 apart a little."""
    where = torch.zeros(1, 40, 3, dtype=torch.float64)
    where[0, 10, 0] = where[0, 22, 1] = where[0, 35, 2] = 1

    shared = interact(where.reshape(-1, 3), torch.eye(3, dtype=torch.float64), 1, 40)

    assert 0 < shared[0, 1] < 1e-3
    assert shared[1, 2] == 0


def test_a_dead_factor_neither_gives_nor_takes() -> None:
    """Its row is zero, and the other's is unchanged."""
    where = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    what = torch.tensor([[1.0, 2.0], [0.0, 0.0]])

    rows = interact(where, what, 1, 2)

    torch.testing.assert_close(rows, what)


# --- weights of the factors ---------------------------------------------------------------------------------------


def test_the_center_weighs_most() -> None:
    """Three cells side by side: the outer ones are 1/3 of the picture away, 4/3 of the deviation of 1/4."""
    weights = center_prior(1, 3)

    outer = math.exp(-((4 / 3) ** 2) / 2)
    torch.testing.assert_close(weights, torch.tensor([outer, 1.0, outer]))


def test_the_center_is_that_of_both_sides() -> None:
    """Two rows of four cells in reading order: one deviation away up or down, 1.5 or 0.5 to the sides."""
    weights = center_prior(2, 4)

    outer, inner = math.exp(-(1 + 2.25) / 2), math.exp(-(1 + 0.25) / 2)
    torch.testing.assert_close(weights, torch.tensor([outer, inner, inner, outer] * 2))


def test_factors_weigh_by_energy_and_centrality() -> None:
    """Energies of 5 · 2 and 1 · 4; the first lies with 3/7 on the left cell, the second all on the right one."""
    where = torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 1.0]])
    what = torch.tensor([[2.0, 0.0], [0.0, 4.0]])

    weights = factor_weights(where, what, 1, 3)

    outer = math.exp(-((4 / 3) ** 2) / 2)
    torch.testing.assert_close(weights, torch.tensor([(3 * outer + 4) / 7, 0.4 * outer]))


@pytest.mark.parametrize(("dead_map", "dead_concept"), [(True, False), (False, True), (True, True)])
def test_a_dead_factor_weighs_nothing(dead_map: bool, dead_concept: bool) -> None:
    """Without a heatmap or without a concept there is no energy; the other factor has all the weight it can have."""
    where = torch.tensor([[0.0 if dead_map else 9.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    what = torch.tensor([[0.0 if dead_concept else 9.0, 0.0], [1.0, 1.0]])

    assert factor_weights(where, what, 1, 3).tolist() == [0.0, 1.0]


def test_factors_that_are_all_dead_weigh_nothing() -> None:
    """There is no strongest one to compare with, and no not-a-number."""
    assert factor_weights(torch.zeros(4, 3), torch.zeros(3, 5), 2, 2).tolist() == [0.0, 0.0, 0.0]


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.01, 100), st.floats(0.01, 100))
def test_weights_do_not_depend_on_the_scale_of_the_factors(
    height: int, width: int, first: float, second: float
) -> None:
    """U V and (s U)(t V) weigh alike, and never above 1."""
    random = torch.Generator().manual_seed(height * 10 + width)
    where, what = torch.rand(height * width, 3, generator=random), torch.rand(3, 5, generator=random)

    weights = factor_weights(where, what, height, width)

    torch.testing.assert_close(factor_weights(first * where, second * what, height, width), weights)
    assert 0 < weights.min() <= weights.max() <= 1


# --- regions ----------------------------------------------------------------------------------------------------

SQUARE = heatmap([1.0, 2.0], [3.0, 4.0])  # of mass 10
WIDE = heatmap([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])  # of mass 21


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.0, 0.0, 1.0, 1.0), 1.0),
        ((0.0, 0.0, 0.5, 0.5), 0.1),
        ((0.5, 0.0, 1.0, 0.5), 0.2),
        ((0.0, 0.5, 0.5, 1.0), 0.3),
        ((0.0, 0.0, 0.75, 1.0), 0.7),  # left column, half of the right one: 1 + 3 + (2 + 4) / 2
        ((0.0, 0.0, 1.0, 0.625), 0.475),  # upper row, a quarter of the lower one: 1 + 2 + (3 + 4) / 4
        ((0.25, 0.25, 0.75, 0.75), 0.25),  # a quarter of each
        ((0.125, 0.0, 0.25, 0.5), 0.025),  # within one cell: a quarter of 1
    ],
)
def test_cut_cells_count_by_the_covered_share(box: tuple[float, ...], expected: float) -> None:
    """Of a 2 x 2 heatmap with masses 1, 2, 3 and 4."""
    shares = mass_inside(SQUARE, coverage(Box(*box), 2, 2).flatten())

    torch.testing.assert_close(shares, torch.tensor([expected]))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.0, 0.0, 1 / 3, 1.0), 5 / 21),  # the left column
        ((0.0, 0.0, 1.0, 0.5), 6 / 21),  # the upper row
        ((0.5, 0.5, 1.0, 1.0), 8.5 / 21),  # half of 5, and 6
    ],
)
def test_x_runs_along_the_width(box: tuple[float, ...], expected: float) -> None:
    """Of a heatmap of 2 rows and 3 columns."""
    shares = mass_inside(WIDE, coverage(Box(*box), 2, 3).flatten())

    torch.testing.assert_close(shares, torch.tensor([expected]))


def test_each_heatmap_has_its_own_share() -> None:
    """Of several factors each is divided by its own mass, and an empty one has share 0."""
    where = torch.tensor([[1.0, 30.0, 0.0], [3.0, 10.0, 0.0]])

    shares = mass_inside(where, coverage(Box(0.0, 0.0, 0.5, 1.0), 1, 2).flatten())

    torch.testing.assert_close(shares, torch.tensor([0.25, 0.75, 0.0]))


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.01, 0.99), st.booleans())
def test_the_shares_of_two_parts_add_up_to_one(height: int, width: int, cut: float, across: bool) -> None:
    """Wherever a straight cut goes, nothing is lost or counted twice."""
    where = torch.rand(height * width, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [(0.0, 0.0, 1.0, cut), (0.0, cut, 1.0, 1.0)] if across else [(0.0, 0.0, cut, 1.0), (cut, 0.0, 1.0, 1.0)]

    total = sum(mass_inside(where, coverage(Box(*part), height, width).flatten()) for part in parts)

    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64))


def test_windows_count_by_the_share_of_their_area_inside() -> None:
    """Two by two cells, the box over the left column down to half of the lower row.

    The whole, R-MAC's first square (the same) and the four single cells in reading order.
    """
    shares = squares_inside(coverage(Box(0.0, 0.0, 0.5, 0.75), 2, 2), levels=2)

    assert shares.tolist() == pytest.approx([0.375, 0.375, 1.0, 0.0, 0.5, 0.0])


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True).map(sorted),
    st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True).map(sorted),
)
def test_a_windows_share_is_the_mean_of_its_cells(
    height: int, width: int, across: list[float], down: list[float]
) -> None:
    """Cell by cell: the area that cell and box have in common, over the cell's."""

    def covered(row: int, column: int) -> float:
        wide = min(across[1], (column + 1) / width) - max(across[0], column / width)
        high = min(down[1], (row + 1) / height) - max(down[0], row / height)
        return max(wide, 0) * width * max(high, 0) * height

    windows = [(range(height), range(width))]
    windows += [(range(t, t + side), range(left, left + side)) for t, left, side in rmac_regions(height, width)]
    expected = [
        math.fsum(covered(row, column) for row in rows for column in columns) / len(rows) / len(columns)
        for rows, columns in windows
    ]

    shares = squares_inside(coverage(Box(across[0], down[0], across[1], down[1]), height, width))

    assert shares.tolist() == pytest.approx(expected, abs=1e-6)


def test_windows_have_the_order_of_their_rows() -> None:
    """Where one cell alone is lit, the rows tell which windows hold it: those that share it with a box around it."""
    activations = torch.zeros(5, 8, 1)
    activations[3, 6] = 1
    cell = (6 / 8, 3 / 5, 7 / 8, 4 / 5)

    lit = rmac_rows(activations).squeeze(1) > 0

    assert torch.equal(squares_inside(coverage(Box(*cell), 5, 8)) > 0, lit)


def test_factors_with_more_than_three_quarters_inside_are_kept() -> None:
    """Exactly three quarters are not more."""
    kept, fallback = select_inside(torch.tensor([0.1, 0.75, 0.7501, 1.0]))

    assert kept.tolist() == [False, False, True, True]
    assert not fallback


def test_where_no_factor_passes_the_largest_share_is_kept() -> None:
    """And the caller is told."""
    kept, fallback = select_inside(torch.tensor([0.1, 0.6, 0.75, 0.2]))

    assert kept.tolist() == [False, False, True, False]
    assert fallback


def test_one_factor_is_kept_where_all_are_outside() -> None:
    """There is always something to search with."""
    kept, fallback = select_inside(torch.zeros(4))

    assert kept.sum() == 1
    assert fallback


def test_the_minimum_can_be_chosen() -> None:
    """A lower minimum keeps more."""
    kept, fallback = select_inside(torch.tensor([0.1, 0.6, 0.75, 0.2]), minimum=0.5)

    assert kept.tolist() == [False, True, True, False]
    assert not fallback
