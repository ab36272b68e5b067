"""Batches of any iterable, as `itertools.batched` makes them."""

from itertools import count

import pytest

from whatwhere.indexer.batched import batched


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, []), (1, [(0,)]), (3, [(0, 1, 2)]), (4, [(0, 1, 2), (3,)]), (6, [(0, 1, 2), (3, 4, 5)])],
)
def test_batches_are_full_except_the_last(length: int, expected: list[tuple[int, ...]]) -> None:
    """Every item is in one batch, in order."""
    assert list(batched(range(length), 3)) == expected


def test_batches_are_taken_as_they_are_asked_for() -> None:
    """An endless iterable can be batched."""
    batches = batched(count(), 2)

    assert [next(batches), next(batches)] == [(0, 1), (2, 3)]


def test_a_batch_holds_at_least_one_item() -> None:
    """A size of zero would end the iteration without a word."""
    with pytest.raises(ValueError, match="give 1 or more"):
        list(batched([1], 0))
