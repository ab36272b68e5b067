"""Boxes in fractions of the upright image: overlap, checks, and the way in from pixels."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.indexer.boxes import WHOLE_IMAGE, Box, box_from_pixels, checked_box
from whatwhere.indexer.errors import InvalidRegion

# Sixty-fourths: exact in floats, so that areas compare exactly.
_edges = st.lists(st.integers(0, 64), min_size=2, max_size=2, unique=True).map(sorted)
boxes = st.tuples(_edges, _edges).map(lambda e: Box(e[0][0] / 64, e[1][0] / 64, e[0][1] / 64, e[1][1] / 64))


def test_the_area_is_the_covered_share() -> None:
    """Half the width by a quarter of the height is an eighth."""
    assert Box(0.25, 0.5, 0.75, 0.75).area == 0.125
    assert WHOLE_IMAGE.area == 1.0


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Box(0.0, 0.0, 0.5, 0.5), 1.0),  # itself
        (Box(0.25, 0.0, 0.75, 0.5), 1 / 3),  # half of each is shared: 1/8 of 3/8
        (Box(0.25, 0.25, 0.75, 0.75), 1 / 7),  # a quarter of each: 1/16 of 7/16
        (Box(0.0, 0.0, 0.25, 0.25), 0.25),  # inside
        (WHOLE_IMAGE, 0.25),  # around
        (Box(0.5, 0.0, 1.0, 0.5), 0.0),  # touching
        (Box(0.75, 0.75, 1.0, 1.0), 0.0),  # apart in both directions
        (Box(0.0, 0.75, 0.5, 1.0), 0.0),  # apart in one
    ],
)
def test_intersection_over_union_is_what_calculation_by_hand_gives(other: Box, expected: float) -> None:
    """Shared area divided by covered area."""
    assert Box(0.0, 0.0, 0.5, 0.5).intersection_over_union(other) == pytest.approx(expected)


@given(one=boxes, other=boxes)
def test_intersection_over_union_is_symmetric_and_a_share(one: Box, other: Box) -> None:
    """Which box is asked does not matter, and only equal boxes reach 1."""
    overlap = one.intersection_over_union(other)

    assert overlap == other.intersection_over_union(one)
    assert 0.0 <= overlap <= 1.0
    assert (overlap == 1.0) == (one == other)


@given(box=boxes)
def test_a_good_box_passes_unchanged(box: Box) -> None:
    """Any box with area inside the image is taken, the borders included."""
    assert checked_box(*box) == box


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-9, 1.0 + 1e-9, 17.0])
def test_a_side_that_is_no_fraction_is_refused_by_name(position: int, value: float) -> None:
    """The error names the field and the value."""
    name = ("x_min", "y_min", "x_max", "y_max")[position]
    sides = [0.25, 0.25, 0.75, 0.75]
    sides[position] = value

    with pytest.raises(InvalidRegion, match=f"region.{name} is {value}") as refused:
        checked_box(*sides)

    assert refused.value.field == f"region.{name}"


@pytest.mark.parametrize(
    ("sides", "field"),
    [
        ((0.75, 0.25, 0.25, 0.75), "region.x_min"),
        ((0.25, 0.75, 0.75, 0.25), "region.y_min"),
        ((0.5, 0.25, 0.5, 0.75), "region.x_min"),
        ((0.25, 0.5, 0.75, 0.5), "region.y_min"),
    ],
    ids=["inverted x", "inverted y", "no width", "no height"],
)
def test_a_box_without_area_is_refused(sides: tuple[float, float, float, float], field: str) -> None:
    """The near side must be smaller than the far one."""
    with pytest.raises(InvalidRegion) as refused:
        checked_box(*sides)

    assert refused.value.field == field


def test_pixels_are_divided_by_the_sides() -> None:
    """X by the width and y by the height."""
    assert box_from_pixels(50, 50, 100, 75, width=200, height=100) == Box(0.25, 0.5, 0.5, 0.75)


@pytest.mark.parametrize(
    "sides", [(-1, -1, 201, 101), (-0.5, 0, 200.5, 100), (0, -0.25, 200, 100.75)], ids=["a pixel", "half", "a quarter"]
)
def test_up_to_a_pixel_beyond_the_picture_is_cut(sides: tuple[float, float, float, float]) -> None:
    """Ground-truth files go that far."""
    assert box_from_pixels(*sides, width=200, height=100) == WHOLE_IMAGE


@pytest.mark.parametrize(
    ("sides", "field"),
    [
        ((-1.5, 0, 200, 100), "region.x_min"),
        ((0, -1.5, 200, 100), "region.y_min"),
        ((0, 0, 201.5, 100), "region.x_max"),
        ((0, 0, 200, 101.5), "region.y_max"),
        ((math.nan, 0, 200, 100), "region.x_min"),
        ((0, 0, 200, math.nan), "region.y_max"),
        ((120, 0, 80, 100), "region.x_min"),
        ((200, 0, 201, 100), "region.x_min"),
    ],
)
def test_pixels_further_outside_are_refused(sides: tuple[float, float, float, float], field: str) -> None:
    """A box of another picture is an error, not a box that is cut to fit."""
    with pytest.raises(InvalidRegion) as refused:
        box_from_pixels(*sides, width=200, height=100)

    assert refused.value.field == field
