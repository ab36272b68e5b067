"""Reading ahead of the network: in order, bounded, and every file as it is now."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from whatwhere.indexer.pipeline.loading import map_ahead, source_of


def test_a_file_that_vanished_is_an_empty_source(tmp_path: Path) -> None:
    """What is gone after the scan has no size and no time."""
    assert source_of((tmp_path / "gone.jpg").as_uri()).byte_count == 0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Give four threads."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


def test_results_keep_the_order_of_the_items(pool: ThreadPoolExecutor) -> None:
    """Items that take longer do not come later."""
    released = threading.Event()

    def square(number: int) -> int:
        if number == 0:
            released.wait(5)
        if number == 3:
            released.set()
        return number * number

    assert list(map_ahead(pool, square, range(20), ahead=6)) == [number * number for number in range(20)]


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_than_so_many_items_are_taken_ahead(pool: ThreadPoolExecutor, ahead: int) -> None:
    """Memory stays bounded: after n results, n + ahead items have been asked for, and never all."""
    taken = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    results = map_ahead(pool, str, items(), ahead)

    for done in (1, 2, 3):
        next(results)
        assert len(taken) == done + ahead


def test_an_exception_reaches_the_one_who_asks(pool: ThreadPoolExecutor) -> None:
    """The results before it come first, then the exception of the item that failed."""
    results = map_ahead(pool, lambda number: 1 // (2 - number), range(5), ahead=4)

    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("end", ["by an exception", "by closing"])
def test_what_waits_is_cancelled_at_an_early_end(end: str) -> None:
    """Items that no thread has begun are not worked on when nobody will ask for them."""
    worked_on: list[int] = []
    ended = threading.Event()

    def work(number: int) -> None:
        worked_on.append(number)
        if number == 0 and end == "by an exception":
            raise ValueError
        if number == 1:
            ended.wait(5)

    with ThreadPoolExecutor(1) as one_thread:
        results = map_ahead(one_thread, work, range(10), ahead=5)
        with suppress(ValueError):
            next(results)
        results.close()  # type: ignore[attr-defined]
        ended.set()

    assert set(worked_on) <= {0, 1}
