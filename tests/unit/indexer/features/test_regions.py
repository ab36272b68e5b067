"""Regions of any shape on small grids, compared with areas that were calculated by hand or counted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from whatwhere.indexer.boxes import WHOLE_IMAGE, Box
from whatwhere.indexer.features.regions import Area, cells_touching, coverage

LEFT, RIGHT = Box(0.0, 0.0, 0.5, 1.0), Box(0.5, 0.0, 1.0, 1.0)


def test_without_a_region_all_is_inside() -> None:
    """As in a box around the whole picture."""
    assert torch.equal(coverage(None, 2, 3), torch.ones(2, 3))
    assert torch.equal(coverage(WHOLE_IMAGE, 2, 3), torch.ones(2, 3))


def test_a_cell_that_a_box_cuts_counts_by_the_covered_share() -> None:
    """Of two rows and two columns: the whole left column, half of the right one, and of both half of the lower row."""
    covered = coverage(Box(0.0, 0.0, 0.75, 0.75), 2, 2)

    assert covered.tolist() == [[1.0, 0.5], [0.5, 0.25]]


def test_what_boxes_have_in_common_counts_once() -> None:
    """Two boxes that overlap in the middle, in one row of four cells."""
    covered = coverage(Area((Box(0.0, 0.0, 0.5, 1.0), Box(0.375, 0.0, 0.625, 1.0))), 1, 4)

    assert covered.tolist() == [[1.0, 1.0, 0.5, 0.0]]


def test_boxes_apart_leave_out_what_is_between() -> None:
    """Two corners of a grid of two by two."""
    covered = coverage(Area((Box(0.0, 0.0, 0.5, 0.5), Box(0.5, 0.5, 1.0, 1.0))), 2, 2)

    assert covered.tolist() == [[1.0, 0.0], [0.0, 1.0]]


SIDES = st.lists(st.integers(0, 12), min_size=2, max_size=2, unique=True).map(sorted)


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=5), st.sampled_from([1, 2, 3, 4, 6]))
def test_any_boxes_cover_what_their_pixels_cover(boxes: list[tuple[list[int], list[int]]], cells: int) -> None:
    """Painted on 12 x 12 pixels, of which each cell has as many."""
    painted = np.zeros((12, 12))
    for (left, right), (top, bottom) in boxes:
        painted[top:bottom, left:right] = 1
    side = 12 // cells
    expected = painted.reshape(cells, side, cells, side).mean(axis=(1, 3))

    fractions = [Box(left / 12, top / 12, right / 12, bottom / 12) for (left, right), (top, bottom) in boxes]
    covered = coverage(Area(tuple(fractions)), cells, cells)

    np.testing.assert_allclose(covered.numpy(), expected, atol=1e-6)


def mask(*rows: list[int]) -> NDArray[np.uint8]:
    return np.array(rows, dtype=np.uint8)


def test_a_mask_counts_by_its_mean_over_each_cell() -> None:
    """Three columns of pixels over two cells: each cell has one of its own, and half of the one in the middle."""
    covered = coverage(Area(mask=mask([255, 255, 0])), 1, 2)

    assert covered.tolist() == [pytest.approx([1.0, 1 / 3], abs=1e-6)]


def test_a_gray_mask_is_half_inside() -> None:
    """As light as it is; stretched over a finer grid it stays what it is."""
    covered = coverage(Area(mask=mask([51], [255])), 4, 1)

    assert covered.flatten().tolist() == pytest.approx([0.2, 0.2, 1.0, 1.0], abs=1e-6)


def test_a_mask_adds_to_the_boxes() -> None:
    """What is in any of them is inside."""
    covered = coverage(Area((LEFT,), mask([0, 0, 0, 255])), 1, 4)

    assert covered.tolist() == [[1.0, 1.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("box", "numbers"),
    [
        (Box(0.0, 0.0, 1.0, 1.0), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (Box(0.25, 0.5, 0.75, 1.0), [[5, 6]]),  # on borders of cells
        (Box(0.2, 0.0, 0.3, 0.4), [[0, 1]]),  # across one
        (Box(0.3, 0.6, 0.3, 0.6), [[5]]),  # a point
        (Box(1.0, 1.0, 1.0, 1.0), [[7]]),
    ],
)
def test_cells_are_touched_that_a_box_overlaps(box: Box, numbers: list[list[int]]) -> None:
    """Two rows of four numbered cells; there is always one. A single box is no other region than the box."""
    grid = torch.arange(8).reshape(2, 4, 1)

    assert cells_touching(grid, box).squeeze(2).tolist() == numbers
    assert cells_touching(grid, Area((box,))).squeeze(2).tolist() == numbers


def test_cells_between_boxes_are_zero() -> None:
    """The rectangle around both is returned."""
    grid = torch.arange(1, 9).reshape(2, 4, 1)

    found = cells_touching(grid, Area((Box(0.0, 0.0, 0.25, 0.5), Box(0.5, 0.0, 0.75, 1.0))))

    assert found.squeeze(2).tolist() == [[1, 0, 3], [0, 0, 7]]


def test_a_mask_touches_where_it_is_lit() -> None:
    """However little."""
    grid = torch.arange(1, 5).reshape(1, 4, 1)

    assert cells_touching(grid, Area(mask=mask([0, 1, 0, 9]))).flatten().tolist() == [2, 0, 4]


def test_a_black_mask_touches_nothing_and_leaves_the_whole() -> None:
    """There is always something to search with."""
    grid = torch.arange(1, 5).reshape(1, 4, 1)

    assert cells_touching(grid, Area(mask=mask([0, 0]))).flatten().tolist() == [1, 2, 3, 4]
