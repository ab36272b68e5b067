"""The box of a match: by hand on maps, by construction on factors."""

import numpy as np
import pytest
import torch
from torch import Tensor

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.features.description import QuantizedFactors
from whatwhere.indexer.features.nmf import Factors, quantize
from whatwhere.indexer.features.regions import Area
from whatwhere.service.search.localize import box_of_maps, localize_exact, localize_stored

CHANNELS = 24


def blob(height: int, width: int, box: tuple[int, int, int, int]) -> Tensor:
    """Return a map that is 1 in the cells [top, left, bottom, right) and 0 elsewhere."""
    top, left, bottom, right = box
    heatmap = torch.zeros(height, width)
    heatmap[top:bottom, left:right] = 1
    return heatmap


def concepts() -> Tensor:
    """Return two concepts that share no channel."""
    both = torch.zeros(2, CHANNELS)
    both[0, :10], both[1, 12:22] = torch.linspace(1, 2, 10), torch.linspace(2, 1, 10)
    return both


def scene(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> Tensor:
    """Return activations [12, 16, C] with the first and the second concept in these cells."""
    maps = torch.stack([blob(12, 16, first), blob(12, 16, second)], dim=-1)
    return maps @ concepts()


def stored(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> QuantizedFactors:
    maps = torch.stack([blob(12, 16, first).flatten(), blob(12, 16, second).flatten()], dim=-1)
    return quantize(Factors(maps, concepts()), 12, 16)


def test_the_box_is_that_of_the_activated_cells() -> None:
    """A quarter of the cells is active: the box is theirs, but for half a cell of interpolation."""
    box = box_of_maps(blob(8, 8, (2, 4, 6, 8))[None])

    assert box is not None
    assert np.allclose(box, (4 / 8, 2 / 8, 1, 6 / 8), atol=0.5 / 8)


def test_only_the_largest_part_is_boxed() -> None:
    """Of two islands the smaller one is left out."""
    heatmap = blob(16, 16, (0, 0, 2, 2)) + blob(16, 16, (8, 8, 14, 14))

    box = box_of_maps(heatmap[None])

    assert box is not None
    assert box.x_min > 0.4
    assert box.y_min > 0.4


def test_each_map_counts_by_its_shape_not_its_strength() -> None:
    """Maps are divided by their maxima before they are averaged."""
    strong, weak = blob(16, 16, (0, 0, 16, 6)) * 100, blob(16, 16, (0, 9, 16, 16))

    box = box_of_maps(torch.stack([strong, weak]))

    assert box is not None
    assert box.x_min > 0.5


def test_at_most_thirty_percent_of_the_picture_is_kept() -> None:
    """A ramp over the whole picture is cut at its upper 30 %."""
    box = box_of_maps(torch.linspace(0.1, 1, 100).expand(100, 100)[None])

    assert box is not None
    assert box.x_min == pytest.approx(0.7, abs=0.02)


def test_nothing_found_is_no_box() -> None:
    """Empty maps give None, not a box of everything."""
    assert box_of_maps(torch.zeros(2, 4, 4)) is None


UPPER_LEFT, LOWER_RIGHT = (0, 0, 5, 6), (7, 10, 12, 16)


@pytest.mark.parametrize(("region", "expected"), [(UPPER_LEFT, LOWER_RIGHT), (LOWER_RIGHT, UPPER_LEFT)])
@pytest.mark.parametrize("localize", ["stored", "exact"])
def test_the_concept_in_the_region_is_found_where_it_went(
    localize: str, region: tuple[int, int, int, int], expected: tuple[int, int, int, int]
) -> None:
    """Two concepts swap their places between query and result: the box follows the one that was asked for."""
    box = Box(region[1] / 16, region[0] / 12, region[3] / 16, region[2] / 12)
    if localize == "stored":
        (found,) = localize_stored(stored(UPPER_LEFT, LOWER_RIGHT), box, [stored(LOWER_RIGHT, UPPER_LEFT)])
    else:
        (found,) = localize_exact(scene(UPPER_LEFT, LOWER_RIGHT), box, [scene(LOWER_RIGHT, UPPER_LEFT)])

    truth = Box(expected[1] / 16, expected[0] / 12, expected[3] / 16, expected[2] / 12)
    assert found is not None
    assert found.intersection_over_union(truth) > 0.6


def test_results_do_not_disturb_each_other() -> None:
    """A result's box is the same alone and among others of other shapes."""
    query = stored(UPPER_LEFT, LOWER_RIGHT)
    maps = torch.stack([blob(6, 30, (0, 0, 3, 9)).flatten(), blob(6, 30, (3, 20, 6, 30)).flatten()], dim=-1)
    other = quantize(Factors(maps, concepts()), 6, 30)
    result = stored(LOWER_RIGHT, UPPER_LEFT)
    region = Box(0, 0, 0.4, 0.45)

    alone = localize_stored(query, region, [result])
    together = localize_stored(query, region, [other, result])

    assert together[1] == alone[0]


@pytest.mark.parametrize(("concept", "expected"), [(0, LOWER_RIGHT), (1, UPPER_LEFT)])
def test_a_chosen_concept_is_found_where_it_went(concept: int, expected: tuple[int, int, int, int]) -> None:
    """Without a region: the box follows the factor that was asked for, not the other one."""
    query, result = stored(UPPER_LEFT, LOWER_RIGHT), stored(LOWER_RIGHT, UPPER_LEFT)

    (found,) = localize_stored(query, None, [result], {concept})

    truth = Box(expected[1] / 16, expected[0] / 12, expected[3] / 16, expected[2] / 12)
    assert found is not None
    assert found.intersection_over_union(truth) > 0.6


def test_a_region_of_two_boxes_is_found_in_both_places() -> None:
    """Both concepts are asked for: the box is around one of them or both, where one box alone finds only its own."""
    query = stored((0, 0, 4, 4), (8, 12, 12, 16))
    result = stored((0, 10, 5, 16), (0, 0, 3, 4))
    boxes = Area((Box(0, 0, 0.3, 0.4), Box(0.7, 0.6, 1, 1)))

    (first,), (both,) = localize_stored(query, boxes.boxes[1], [result]), localize_stored(query, boxes, [result])

    assert first is not None
    assert both is not None
    assert first.x_max < 0.35
    assert both.x_min > 0.5  # the larger of the two parts
