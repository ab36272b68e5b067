"""Windows: the fast searches against slow ones that cannot be wrong, and objects planted by construction."""

import math
from collections.abc import Callable
from itertools import combinations, product
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

from whatwhere.indexer.boxes import Box
from whatwhere.service.evaluation.retrieval import windows
from whatwhere.service.evaluation.retrieval.windows import IntegralMaxima, approximate_window, exhaustive_window

CHANNELS = 64
Search: TypeAlias = Callable[[Tensor, Box | None, Tensor], Box | None]
SEARCHES: list[Search] = [exhaustive_window, approximate_window]


def random_grid(height: int, width: int, seed: int) -> Tensor:
    """Return activations with few strong ones, as those of networks are."""
    return torch.rand(height, width, CHANNELS, generator=torch.Generator().manual_seed(seed)).pow(3)


def own_channels(height: int, width: int, first: int = 0) -> Tensor:
    """Return cells of which each activates a channel of its own, from channel `first` on."""
    cells = torch.zeros(height * width, CHANNELS)
    cells[torch.arange(height * width), first + torch.arange(height * width)] = 1
    return cells.reshape(height, width, CHANNELS)


def planted(height: int, width: int, top: int, left: int, thing: Tensor) -> Tensor:
    """Return a background that weakly activates the last channels, with a thing on it."""
    grid = torch.zeros(height, width, CHANNELS)
    grid[:, :, 40:] = random_grid(height, width, seed=1)[:, :, 40:] / 2
    grid[top : top + thing.shape[0], left : left + thing.shape[1]] = thing
    return grid


def rectangles(height: int, width: int) -> Tensor:
    """Return every rectangle: top, left, bottom, right."""
    spans = product(combinations(range(height + 1), 2), combinations(range(width + 1), 2))
    return torch.tensor([[top, left, bottom, right] for (top, bottom), (left, right) in spans])


def cut(grid: Tensor, rectangle: Tensor) -> Tensor:
    top, left, bottom, right = rectangle.tolist()
    return grid[top:bottom, left:right]


def cosine(query: Tensor, window: Tensor) -> float:
    return float(torch.cosine_similarity(query.amax(dim=(0, 1)), window.amax(dim=(0, 1)), dim=0))


def cells(box: Box | None, grid: Tensor) -> Tensor:
    """Return a box in cells: top, left, bottom, right."""
    assert box is not None
    height, width, _ = grid.shape
    return torch.tensor([box.y_min * height, box.x_min * width, box.y_max * height, box.x_max * width]).round().long()


@pytest.mark.parametrize("shape", [(6, 5), (1, 7), (7, 1), (1, 1), (4, 9)])
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_no_rectangle_is_better_than_the_found_one(shape: tuple[int, int], seed: int) -> None:
    """A loop over all rectangles finds the same."""
    query, result = random_grid(2, 3, seed=10 * seed), random_grid(*shape, seed=seed)
    slowly = max(rectangles(*shape), key=lambda each: cosine(query, cut(result, each)))

    found = cells(exhaustive_window(query, None, result), result)

    assert found.tolist() == slowly.tolist()


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("top", "left"), [(0, 0), (4, 7), (8, 11)])
def test_a_planted_thing_is_found_to_the_cell(search: Search, top: int, left: int) -> None:
    """Each of its cells counts and every other one disturbs: only the thing itself fits."""
    thing = own_channels(4, 5)

    found = search(thing, None, result := planted(12, 16, top, left, thing))

    assert cells(found, result).tolist() == [top, left, top + 4, left + 5]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(
    ("region", "expected"), [(Box(0, 0, 0.5, 1), [1, 1, 4, 4]), (Box(0.5, 0, 1, 1), [6, 9, 9, 12])]
)
def test_the_region_says_what_is_looked_for(search: Search, region: Box, expected: list[int]) -> None:
    """Two things side by side in the query, apart in the result: the one in the region is boxed."""
    left, right = own_channels(3, 3), own_channels(3, 3, first=20)
    result = planted(10, 14, 1, 1, left)
    result[6:9, 9:12] = right

    found = search(torch.cat([left, right], dim=1), region, result)

    assert cells(found, result).tolist() == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.25, 0.75, (1, 3)),
        (0.3, 0.6, (1, 3)),
        (0.24, 0.76, (0, 4)),
        (0.25 - 1e-9, 0.75 + 1e-9, (1, 3)),
        (0.6, 0.7, (2, 3)),
    ],
)
def test_the_query_is_the_cells_that_its_box_touches(low: float, high: float, expected: tuple[int, int]) -> None:
    """Of four cells in a row, an edge on a border touches one side of it only."""
    row = own_channels(1, 4)

    found = cells(exhaustive_window(row, Box(low, 0, high, 1), row), row)

    assert (int(found[1]), int(found[3])) == expected


def test_of_equal_rectangles_the_smallest_is_taken() -> None:
    """Around one active cell nothing disturbs, so that all rectangles with it fit as well."""
    result = torch.zeros(5, 6, CHANNELS)
    result[2, 3, 7] = 1

    found = cells(exhaustive_window(result, None, result), result)

    assert found.tolist() == [2, 3, 3, 4]


@pytest.mark.parametrize("search", SEARCHES)
def test_nothing_in_common_is_no_box(search: Search) -> None:
    """Query and result activate different channels."""
    found = search(own_channels(2, 2), None, own_channels(4, 4, first=30))

    assert found is None


@pytest.mark.parametrize("search", SEARCHES)
def test_a_result_of_other_proportions_than_the_query_still_gets_a_box(search: Search) -> None:
    """A flat query, a result one cell wide: no rectangle there has the query's aspect ratio."""
    thing = own_channels(1, 8)
    result = planted(9, 1, 4, 0, thing[:, :1])

    found = cells(search(thing, None, result), result)

    assert found.tolist() == [4, 0, 5, 1]


def test_the_approximate_maximum_is_just_above_the_true_one() -> None:
    """For every rectangle of n cells it lies between the maximum and n^(1/10) times it, in weak channels too."""
    grid = random_grid(7, 8, seed=5) * torch.logspace(-4, 2, CHANNELS)
    every = rectangles(7, 8)
    true = torch.stack([cut(grid, each).amax(dim=(0, 1)) for each in every]).double()
    area = ((every[:, 2] - every[:, 0]) * (every[:, 3] - every[:, 1])).double().unsqueeze(1)
    strong = true > 0.1 * grid.amax(dim=(0, 1))

    found = IntegralMaxima(grid).over(every)

    assert (found >= true * (1 - 1e-3))[strong].all()
    assert (found <= true * area.pow(0.1) * (1 + 1e-3))[strong].all()
    assert (found <= 0.13 * grid.amax(dim=(0, 1)))[~strong].all()


def test_an_empty_rectangle_of_a_busy_picture_is_empty() -> None:
    """The rounding of sums over the rest of the picture does not show as activation."""
    grid = random_grid(40, 40, seed=6)
    grid[20:23, 20:23] = 0

    found = IntegralMaxima(grid).over(torch.tensor([[20, 20, 23, 23]]))

    assert not found.any()


@pytest.mark.parametrize("seed", range(7, 12))
def test_the_approximate_search_is_never_better_than_the_exhaustive_one(seed: int) -> None:
    """Measured exactly, its rectangle has at most the cosine of the best, and comes near it."""
    query, result = random_grid(4, 5, seed=10 * seed), random_grid(11, 13, seed=seed)

    best = cosine(query, cut(result, cells(exhaustive_window(query, None, result), result)))
    approximate = cosine(query, cut(result, cells(approximate_window(query, None, result), result)))

    assert 0.9 * best < approximate <= best + 1e-6


def test_the_first_rectangles_have_the_aspect_ratio_of_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without refinement, what is found is about twice as wide as high, like the query, with every third border."""
    monkeypatch.setattr(windows, "REFINEMENTS", 0)
    result = random_grid(24, 25, seed=13)

    top, left, bottom, right = cells(approximate_window(random_grid(5, 10, seed=14), None, result), result).tolist()

    assert abs(math.log((right - left) / (bottom - top) / 2)) <= math.log(1.1)
    assert all(border % 3 == 0 or border == 25 for border in (top, left, bottom, right))


def test_many_rectangles_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts that bound the memory leave none out: the very last rectangle is the one that fits."""
    monkeypatch.setattr(windows, "_AT_ONCE", 4)
    monkeypatch.setattr(windows, "REFINEMENTS", 0)
    thing = own_channels(3, 3)
    result = planted(12, 12, 9, 9, thing)

    found = cells(approximate_window(thing, None, result), result)

    assert found.tolist() == [9, 9, 12, 12]
