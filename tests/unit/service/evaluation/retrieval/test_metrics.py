"""Metrics of a ranking, against calculation by hand and against a plain loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.service.evaluation.retrieval.benchmark import Judgment
from whatwhere.service.evaluation.retrieval.metrics import (
    METRICS,
    average_precision,
    average_precision_at,
    hit_ranks,
    precision_at,
    scores,
)

NOTHING: frozenset[str] = frozenset()


def test_junk_advances_no_rank() -> None:
    """Two pieces of junk before the second positive leave it at rank 2, counted from 0."""
    ranks = hit_ranks(list("aJxJb"), {"a", "b"}, {"J"})

    assert ranks.tolist() == [0, 2]


def test_indices_in_an_array_are_ranked_like_names() -> None:
    """A row of a matrix of rankings can be given as it is."""
    ranks = hit_ranks(np.array([7, 3, 9, 1]), {1, 7}, {3})

    assert ranks.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ("abxx", 1.0),
        ("xaxb", ((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2),  # precision before and at each hit, recall 1/2 each
        ("axxb", ((1 + 1) / 2 + (1 / 3 + 2 / 4) / 2) / 2),
        ("xxxx", 0.0),
        ("axxx", 0.5),  # b is never found
        ("aJJb", 1.0),
        ("JaxJb", ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2),
        ("", 0.0),
    ],
)
def test_average_precision_is_what_calculation_by_hand_gives(ranking: str, expected: float) -> None:
    """Positives a and b, junk J."""
    assert average_precision(list(ranking), {"a", "b"}, {"J"}) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (1, 0.0),  # x
        (2, ((0 + 1 / 2) / 2) / 2),  # x a, of two that could be
        (3, ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 3),  # x a b, of three
        (9, ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2 + (2 / 4 + 3 / 5) / 2) / 3),  # all three there are
    ],
)
def test_average_precision_at_a_depth_is_what_calculation_by_hand_gives(depth: int, expected: float) -> None:
    """Positives a, b and c in x a b x c, with junk between."""
    found = average_precision_at(depth, list("xJabxJc"), {"a", "b", "c"}, {"J"})

    assert found == pytest.approx(expected, abs=1e-12)


def test_a_perfect_first_page_is_one_at_its_depth() -> None:
    """Thirty of ninety positives, all there is room for."""
    positives = set(range(90))
    ranking = [*range(30), *range(100, 200), *range(30, 90)]

    assert average_precision_at(30, ranking, positives, set()) == 1.0
    assert average_precision(ranking, positives, set()) < 1.0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("ranking", "count", "expected"),
    [
        ("axbxx", 1, 1.0),
        ("xabxx", 1, 0.0),
        ("axbxx", 2, 1 / 2),
        ("axbxx", 10, 2 / 3),  # the last positive is third: two of three
        ("abxxx", 10, 1.0),
        ("aJbxx", 2, 1.0),
        ("xxxxx", 10, 0.0),
    ],
)
def test_precision_ends_at_the_last_positive(ranking: str, count: int, expected: float) -> None:
    """As revisitop caps k; positives a and b, junk J."""
    assert precision_at(count, list(ranking), {"a", "b"}, {"J"}) == pytest.approx(expected, abs=1e-12)


def test_a_query_without_positives_has_no_value() -> None:
    """It is left out of the mean, rather than counted as 0."""
    assert average_precision(["a"], NOTHING, NOTHING) is None
    assert average_precision_at(30, ["a"], NOTHING, NOTHING) is None
    assert precision_at(1, ["a"], NOTHING, NOTHING) is None
    assert scores(METRICS, ["a"], Judgment(NOTHING, NOTHING)) is None


def test_all_metrics_at_once_are_those_one_by_one() -> None:
    """Each name stands for its metric."""
    ranking, positives, junk = list("xaJbxxxxxxxxxc"), frozenset("abcd"), frozenset("J")

    found = scores(METRICS, ranking, Judgment(positives, junk))

    assert found == {
        "mAP": average_precision(ranking, positives, junk),
        "AP@30": average_precision_at(30, ranking, positives, junk),
        "mP@1": precision_at(1, ranking, positives, junk),
        "mP@5": precision_at(5, ranking, positives, junk),
        "mP@10": precision_at(10, ranking, positives, junk),
    }


@given(
    ranking=st.permutations(range(12)),
    positives=st.sets(st.integers(0, 14), min_size=1),
    junk=st.sets(st.integers(0, 14)),
    depth=st.integers(1, 14),
)
def test_the_areas_are_those_of_a_walk_down_the_ranking(
    ranking: list[int], positives: set[int], junk: set[int], depth: int
) -> None:
    """The evaluator's own loop, rank by rank, whole and to a depth."""
    area, hits, old_precision, area_at_depth = 0.0, 0, 1.0, 0.0
    for rank, image in enumerate(image for image in ranking if image not in junk):
        hits += image in positives
        precision = hits / (rank + 1)
        area += (image in positives) * (old_precision + precision) / 2
        old_precision = precision
        area_at_depth = area if rank < depth else area_at_depth

    assert average_precision(ranking, positives, junk) == pytest.approx(area / len(positives))
    expected = area_at_depth / min(depth, len(positives))
    assert average_precision_at(depth, ranking, positives, junk) == pytest.approx(expected)
