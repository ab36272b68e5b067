"""Who may begin, who waits, who is sent away: overload sheds at the door, in the order of cost."""

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

_SMOOTHING = 0.1  # of a new measurement in the running mean of how long a piece of work takes
_LEAST_DELAY_S = 0.1

_Result = TypeVar("_Result")


class ConcurrencyLimiter:
    """Counts what is inside, in all and for each client. For one event loop, whose thread alone may use it."""

    def __init__(self, most: int, most_per_client: int) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._inside: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        """Return how many requests are inside; from any thread."""
        return self._count

    @contextmanager
    def entered(self, client: str) -> Iterator[None]:
        """Be inside; raises TooManyRequests where this client has too many there, ServerOverloaded where all have."""
        if self._inside[client] >= self._most_per_client:
            raise TooManyRequests(
                f"you have {self._most_per_client} requests at once, which is the most: wait for one to end",
                retry_delay_s=_jittered(_LEAST_DELAY_S),
            )
        if self._count >= self._most:
            raise ServerOverloaded(
                f"{self._most} requests are being answered, which is the most: try again later",
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
                del self._inside[client]  # or every address that ever asked would be remembered


class WorkerPool:
    """Threads of their own for one kind of work, and a bounded queue before them. For one event loop.

    Each thread calls `initializer` at its start.
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
        """How many wait for a thread."""
        return max(0, self._inside - self._threads)

    async def run(self, work: Callable[[], _Result], ticket: RequestContext) -> _Result:
        """Do `work` in a thread, after what came before; raises ServerOverloaded where the queue is full.

        When the caller goes while it waits, it is not done at all.
        """
        if self.waiting >= self._most_waiting:
            raise ServerOverloaded(
                f"{self._most_waiting} {self._name} are waiting, which is the most: try again later",
                retry_delay_s=_jittered(self._mean_s * self._inside / self._threads),
            )
        self._inside += 1
        queued_ns = monotonic_ns()
        loop = asyncio.get_running_loop()

        def timed() -> _Result:
            ticket.record("queue", queued_ns)
            ticket.check()
            started = monotonic()
            try:
                return work()
            finally:
                _in_loop(loop, self._note, monotonic() - started)

        future = self._pool.submit(timed)
        future.add_done_callback(partial(self._leave, loop))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Refuse what waits; threads end with what they do."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _note(self, seconds: float) -> None:
        self._mean_s += _SMOOTHING * (seconds - self._mean_s) if self._mean_s else seconds

    def _leave(self, loop: asyncio.AbstractEventLoop, _: "Future[_Result]") -> None:
        """Free the place when the thread is free, which a caller that goes does not wait for."""
        _in_loop(loop, self._left)

    def _left(self) -> None:
        self._inside -= 1


def _in_loop(loop: asyncio.AbstractEventLoop, work: Callable[..., None], *arguments: object) -> None:
    """Do something in the loop; nothing where it was closed, with its server, while a thread went on."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(work, *arguments)


def _jittered(delay_s: float) -> float:
    """Spread the next tries, or all that were sent away together would come back together."""
    return max(_LEAST_DELAY_S, delay_s) * random.uniform(0.75, 1.5)  # noqa: S311 - not a secret
