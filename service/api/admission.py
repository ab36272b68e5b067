"""Admission control: limit concurrent requests, and queue work in bounded worker pools."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic, monotonic_ns
from typing import TypeVar

from whatwhere.indexer.errors import ServerOverloaded, TooManyRequests
from whatwhere.service.request_context import RequestContext

_SMOOTHING = 0.1  # weight of a new measurement in the moving average of the work's duration
_LEAST_DELAY_S = 0.1

_Result = TypeVar("_Result")


class ConcurrencyLimiter:
    """Limits concurrent requests, in total and per client.

    Belongs to one event loop and must be used from its thread only, except for `len`.
    """

    def __init__(self, most: int, most_per_client: int) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._inside: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        """Return the number of requests in flight; from any thread."""
        return self._count

    @contextmanager
    def entered(self, client: str) -> Iterator[None]:
        """Count a request of `client` as in flight.

        Raises TooManyRequests if the client has reached its limit, ServerOverloaded if the total is reached.
        """
        if self._inside[client] >= self._most_per_client:
            raise TooManyRequests(
                f"you have {self._most_per_client} requests in flight, which is the limit: wait until one ends",
                retry_delay_s=_jittered(_LEAST_DELAY_S),
            )
        if self._count >= self._most:
            raise ServerOverloaded(
                f"the server has {self._most} requests in flight, which is the limit: try again later",
                retry_delay_s=_jittered(_LEAST_DELAY_S),
            )
        self._inside[client] += 1
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._inside[client] -= 1
            if not self._inside[client]:
                del self._inside[client]  # otherwise every address would stay in memory


class WorkerPool:
    """A thread pool with a bounded queue for one kind of work. Belongs to one event loop.

    Each thread calls `initializer` once when it starts.
    """

    def __init__(
        self, name: str, threads: int, most_waiting: int, initializer: Callable[[], None] | None = None
    ) -> None:
        self._name = name
        self._threads = threads
        self._most_waiting = most_waiting
        self._pool = ThreadPoolExecutor(threads, name, initializer)
        self._inside = 0
        self._mean_s = 0.0

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return max(0, self._inside - self._threads)

    async def run(self, work: Callable[[], _Result], context: RequestContext) -> _Result:
        """Run `work` in a thread of the pool, first in, first out.

        Work whose caller has disconnected or whose deadline has passed in the queue is not run. Raises ServerOverloaded
        if the queue is full, and the errors of `work`.
        """
        if self.waiting >= self._most_waiting:
            raise ServerOverloaded(
                f"{self._most_waiting} {self._name} are queued, which is the limit: try again later",
                retry_delay_s=_jittered(self._mean_s * self._inside / self._threads),
            )
        self._inside += 1
        queued_ns = monotonic_ns()
        loop = asyncio.get_running_loop()

        def timed() -> _Result:
            context.record("queue", queued_ns)
            context.check()
            started = monotonic()
            try:
                return work()
            finally:
                _in_loop(loop, self._note, monotonic() - started)

        future = self._pool.submit(timed)
        future.add_done_callback(partial(self._leave, loop))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Cancel queued work, and let running work finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _note(self, seconds: float) -> None:
        self._mean_s += _SMOOTHING * (seconds - self._mean_s) if self._mean_s else seconds

    def _leave(self, loop: asyncio.AbstractEventLoop, _: "Future[_Result]") -> None:
        """Free the slot when the thread is free, even if the caller has disconnected before."""
        _in_loop(loop, self._left)

    def _left(self) -> None:
        self._inside -= 1


def _in_loop(loop: asyncio.AbstractEventLoop, work: Callable[..., None], *arguments: object) -> None:
    """Do something in the loop; nothing where it was closed, with its server, while a thread went on."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(work, *arguments)


def _jittered(delay_s: float) -> float:
    """Add jitter, so that clients refused together do not retry together."""
    return max(_LEAST_DELAY_S, delay_s) * random.uniform(0.75, 1.5)  # noqa: S311 - not a secret
