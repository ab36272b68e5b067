"""Compute average precision and precision of a ranking, as the evaluators of Oxford and revisitop do.

Junk is removed from the ranking first, so it does not change ranks. All metrics are functions of the ranks of the found
positives and of the number of positives. An image that is both junk and positive counts as junk.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from whatwhere.service.evaluation.retrieval.benchmark import Judgment

Ranks: TypeAlias = NDArray[np.int64]
Ranking: TypeAlias = "Sequence[Hashable] | NDArray[Any]"


def hit_ranks(ranking: Ranking, positives: AbstractSet[Any], junk: AbstractSet[Any]) -> Ranks:
    """Return the ranks of the positives, from 0, counted without junk, ascending: int64 [hits].

    `ranking` holds each image once, best first, as names or indices. Takes 0.4 ms for 5000 images (measured).
    """
    images = ranking.tolist() if isinstance(ranking, np.ndarray) else ranking
    return np.flatnonzero(np.fromiter((image in positives for image in images if image not in junk), dtype=bool))


def average_precision(ranking: Ranking, positives: AbstractSet[Any], junk: AbstractSet[Any]) -> float | None:
    """Return the area under precision over recall by the trapezoid rule of Oxford's evaluator, in [0, 1].

    Positives that are not in the ranking count as not found. Returns None if there are no positives: the query is left
    out of the mean.
    """
    return _of_hits(_trapezoid_area, ranking, positives, junk)


def average_precision_at(
    depth: int, ranking: Ranking, positives: AbstractSet[Any], junk: AbstractSet[Any]
) -> float | None:
    """Return the average precision of the first `depth` results, in [0, 1]; None without positives.

    The sum of the trapezoids of the hits is divided by `min(depth, positives)`, so a perfect first page scores 1 for
    any number of positives. This definition is ours: no protocol known to us defines AP@k with trapezoids.
    """
    return _of_hits(partial(_trapezoid_area, depth=depth), ranking, positives, junk)


def precision_at(count: int, ranking: Ranking, positives: AbstractSet[Any], junk: AbstractSet[Any]) -> float | None:
    """Return the share of positives among the first `count` results, in [0, 1]; None without positives.

    As in revisitop's mP@k, the divisor is `min(count, rank of the last positive)`: a query with three positives, all at
    the top, scores 1 also at 10.
    """
    return _of_hits(partial(_capped_precision, count=count), ranking, positives, junk)


def scores(metrics: Iterable[str], ranking: Ranking, judgment: Judgment) -> dict[str, float] | None:
    """Return each metric by its name in METRICS; None without positives. The ranking is read once."""
    if not judgment.positives:
        return None
    ranks = hit_ranks(ranking, judgment.positives, judgment.junk)
    return {metric: METRICS[metric](ranks, len(judgment.positives)) for metric in metrics}


def _of_hits(
    metric: Callable[[Ranks, int], float], ranking: Ranking, positives: AbstractSet[Any], junk: AbstractSet[Any]
) -> float | None:
    return metric(hit_ranks(ranking, positives, junk), len(positives)) if positives else None


def _trapezoid_area(ranks: Ranks, positive_count: int, depth: int | None = None) -> float:
    """Sum (precision before the hit + precision at the hit) / 2 over the hits; divide by the number of positives."""
    if depth is not None:
        ranks, positive_count = ranks[ranks < depth], min(depth, positive_count)
    hits = np.arange(len(ranks))
    before = np.where(ranks > 0, hits / np.maximum(ranks, 1), 1.0)  # no wrong result before: precision 1
    at = (hits + 1) / (ranks + 1)
    return float((before + at).sum() / (2 * positive_count))


def _capped_precision(ranks: Ranks, positive_count: int, count: int) -> float:
    if not len(ranks):
        return 0.0
    capped = min(count, int(ranks[-1]) + 1)
    return int((ranks < capped).sum()) / capped


# name in reports → the metric of (ranks, number of positives)
METRICS: Mapping[str, Callable[[Ranks, int], float]] = {
    "mAP": _trapezoid_area,
    "AP@30": partial(_trapezoid_area, depth=30),
    "mP@1": partial(_capped_precision, count=1),
    "mP@5": partial(_capped_precision, count=5),
    "mP@10": partial(_capped_precision, count=10),
}
