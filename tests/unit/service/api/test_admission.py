"""At the door: who begins, who waits, who is sent away, and what becomes of who leaves the queue."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from whatwhere.indexer.errors import DeadlineExceeded, ServerOverloaded, TooManyRequests
from whatwhere.service.api.admission import ConcurrencyLimiter, WorkerPool
from whatwhere.service.request_context import RequestContext


@pytest.fixture
def lane() -> Iterator[WorkerPool]:
    """Give a lane of one thread before which two may wait."""
    made = WorkerPool("uploads", 1, 2)
    yield made
    made.close()


def test_a_door_lets_in_so_many() -> None:
    """The next is sent away with a time to come back, and has a place when one leaves."""
    door = ConcurrencyLimiter(2, 2)

    with door.entered("a"), door.entered("b"):
        with pytest.raises(ServerOverloaded) as refused, door.entered("c"):
            pass
        inside = len(door)
    with door.entered("c"):
        later = len(door)

    assert refused.value.retry_delay_s is not None
    assert refused.value.retry_delay_s > 0
    assert (inside, later) == (2, 1)


def test_one_client_cannot_take_all_places() -> None:
    """It is told that it is its own doing; others come in."""
    door = ConcurrencyLimiter(10, 1)

    with door.entered("a"):
        with pytest.raises(TooManyRequests), door.entered("a"):
            pass
        with door.entered("b"):
            inside = len(door)

    assert inside == 2


def test_who_left_is_forgotten() -> None:
    """The door of a public server does not remember every address."""
    door = ConcurrencyLimiter(10, 1)

    for number in range(1000):
        with door.entered(f"client {number}"):
            pass

    assert len(door._inside) == 0


def test_the_queue_before_a_lane_is_bounded(lane: WorkerPool) -> None:
    """One works, two wait, the fourth is sent away; the three are done."""
    go = threading.Event()

    async def four() -> tuple[list[bool], type[BaseException]]:
        waiting = [asyncio.create_task(lane.run(lambda: go.wait(30), RequestContext())) for _ in range(3)]
        await asyncio.sleep(0)
        try:
            await lane.run(lambda: True, RequestContext())
        except ServerOverloaded as error:
            refused = type(error)
        go.set()
        return list(await asyncio.gather(*waiting)), refused

    done, refused = asyncio.run(four())

    assert done == [True] * 3
    assert refused is ServerOverloaded


def test_who_leaves_the_queue_is_not_served_and_gives_its_place(lane: WorkerPool) -> None:
    """Its work is never begun."""
    go, served = threading.Event(), []

    async def leave() -> int:
        first = asyncio.create_task(lane.run(lambda: go.wait(30), RequestContext()))
        second = asyncio.create_task(lane.run(lambda: served.append("second"), RequestContext()))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        await asyncio.sleep(0.01)
        waiting = lane.waiting
        go.set()
        await first
        return waiting

    waiting = asyncio.run(leave())

    assert served == []
    assert waiting == 0


def test_who_waited_past_the_deadline_is_not_served(lane: WorkerPool) -> None:
    """The deadline is looked at again when a thread is free."""
    go, served, context = threading.Event(), [], RequestContext()

    async def late() -> None:
        first = asyncio.create_task(lane.run(lambda: go.wait(30), RequestContext()))
        second = asyncio.create_task(lane.run(lambda: served.append("second"), context))
        await asyncio.sleep(0)
        context._deadline_s = 0.0
        go.set()
        await first
        await second

    with pytest.raises(DeadlineExceeded):
        asyncio.run(late())

    assert served == []


def test_a_running_work_keeps_its_place_though_the_caller_goes(lane: WorkerPool) -> None:
    """Else callers that go would have more threads' worth of work going on than there are threads."""
    go, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(30)

    async def leave() -> tuple[int, int]:
        running = asyncio.create_task(lane.run(work, RequestContext()))
        await asyncio.to_thread(begun.wait, 30)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        inside = lane._inside
        go.set()
        while lane._inside:
            await asyncio.sleep(0.001)
        return inside, lane._inside

    assert asyncio.run(leave()) == (1, 0)


def test_the_time_to_come_back_grows_with_the_queue() -> None:
    """By what work has taken so far: three that take 0.2 s each are about 0.6 s, spread by half."""
    lane = WorkerPool("uploads", 1, 2)
    go = threading.Event()

    async def fill() -> float:
        await lane.run(lambda: go.wait(0.2), RequestContext())
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(lane.run(lambda: go.wait(30), RequestContext())) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ServerOverloaded) as refused:
            await lane.run(lambda: None, RequestContext())
        go.set()
        await asyncio.gather(*waiting)
        assert refused.value.retry_delay_s is not None
        return refused.value.retry_delay_s

    delay_s = asyncio.run(fill())
    lane.close()

    assert 0.4 < delay_s < 10
