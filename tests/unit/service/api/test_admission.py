"""Admission: who begins, who waits, who is sent away, and what becomes of who leaves the queue."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from whatwhere.indexer.errors import DeadlineExceeded, ServerOverloaded, TooManyRequests
from whatwhere.service.api.admission import ConcurrencyLimiter, WorkerPool
from whatwhere.service.request_context import RequestContext


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    """Give a pool of one thread before which two may wait."""
    made = WorkerPool("uploads", 1, 2)
    yield made
    made.close()


def test_a_door_lets_in_so_many() -> None:
    """The next is sent away with a time to come back, and has a place when one leaves."""
    limiter = ConcurrencyLimiter(2, 2)

    with limiter.entered("a"), limiter.entered("b"):
        with pytest.raises(ServerOverloaded) as refused, limiter.entered("c"):
            pass
        inside = len(limiter)
    with limiter.entered("c"):
        later = len(limiter)

    assert refused.value.retry_delay_s is not None
    assert refused.value.retry_delay_s > 0
    assert (inside, later) == (2, 1)


def test_one_client_cannot_take_all_places() -> None:
    """It is told that it is its own doing; others come in."""
    limiter = ConcurrencyLimiter(10, 1)

    with limiter.entered("a"):
        with pytest.raises(TooManyRequests), limiter.entered("a"):
            pass
        with limiter.entered("b"):
            inside = len(limiter)

    assert inside == 2


def test_who_left_is_forgotten() -> None:
    """The limiter of a public server does not remember every address."""
    limiter = ConcurrencyLimiter(10, 1)

    for number in range(1000):
        with limiter.entered(f"client {number}"):
            pass

    assert len(limiter._inside) == 0


def test_the_queue_before_a_pool_is_bounded(pool: WorkerPool) -> None:
    """One works, two wait, the fourth is sent away; the three are done."""
    go = threading.Event()

    async def four() -> tuple[list[bool], type[BaseException]]:
        waiting = [asyncio.create_task(pool.run(lambda: go.wait(30), RequestContext())) for _ in range(3)]
        await asyncio.sleep(0)
        try:
            await pool.run(lambda: True, RequestContext())
        except ServerOverloaded as error:
            refused = type(error)
        go.set()
        return list(await asyncio.gather(*waiting)), refused

    done, refused = asyncio.run(four())

    assert done == [True] * 3
    assert refused is ServerOverloaded


def test_who_leaves_the_queue_is_not_served_and_gives_its_place(pool: WorkerPool) -> None:
    """Its work is never begun."""
    go, served = threading.Event(), []

    async def leave() -> int:
        first = asyncio.create_task(pool.run(lambda: go.wait(30), RequestContext()))
        second = asyncio.create_task(pool.run(lambda: served.append("second"), RequestContext()))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        await asyncio.sleep(0.01)
        waiting = pool.waiting
        go.set()
        await first
        return waiting

    waiting = asyncio.run(leave())

    assert served == []
    assert waiting == 0


def test_who_waited_past_the_deadline_is_not_served(pool: WorkerPool) -> None:
    """The deadline is looked at again when a thread is free."""
    go, served, context = threading.Event(), [], RequestContext()

    async def late() -> None:
        first = asyncio.create_task(pool.run(lambda: go.wait(30), RequestContext()))
        second = asyncio.create_task(pool.run(lambda: served.append("second"), context))
        await asyncio.sleep(0)
        context._deadline_s = 0.0
        go.set()
        await first
        await second

    with pytest.raises(DeadlineExceeded):
        asyncio.run(late())

    assert served == []


def test_a_running_work_keeps_its_place_though_the_caller_goes(pool: WorkerPool) -> None:
    """Else callers that go would have more threads' worth of work going on than there are threads."""
    go, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(30)

    async def leave() -> tuple[int, int]:
        running = asyncio.create_task(pool.run(work, RequestContext()))
        await asyncio.to_thread(begun.wait, 30)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        inside = pool._inside
        go.set()
        while pool._inside:
            await asyncio.sleep(0.001)
        return inside, pool._inside

    assert asyncio.run(leave()) == (1, 0)


def test_the_time_to_come_back_grows_with_the_queue() -> None:
    """By what work has taken so far: three that take 0.2 s each are about 0.6 s, spread by half."""
    pool = WorkerPool("uploads", 1, 2)
    go = threading.Event()

    async def fill() -> float:
        await pool.run(lambda: go.wait(0.2), RequestContext())
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(pool.run(lambda: go.wait(30), RequestContext())) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ServerOverloaded) as refused:
            await pool.run(lambda: None, RequestContext())
        go.set()
        await asyncio.gather(*waiting)
        assert refused.value.retry_delay_s is not None
        return refused.value.retry_delay_s

    delay_s = asyncio.run(fill())
    pool.close()

    assert 0.4 < delay_s < 10
