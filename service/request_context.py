"""The context of a request: deadline, cancellation, and the duration of each stage."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from whatwhere.indexer.errors import DeadlineExceeded, RequestCancelled


@dataclass(frozen=True)
class Stage:
    """A finished stage, with the monotonic clock at its beginning and end."""

    name: str
    started_ns: int
    ended_ns: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return (self.ended_ns - self.started_ns) / 1e9


class RequestContext:
    """Deadline, cancellation and stages of one request. Used by one thread at a time.

    `deadline_s` is a time of the monotonic clock; None means no deadline. No expensive step begins on a dead context.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        self.stages: list[Stage] = []
        self._deadline_s = deadline_s
        self._cancelled = False

    def cancel(self) -> None:
        """Cancel the request: the caller has disconnected."""
        self._cancelled = True

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.remaining_s <= 0

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline, negative after it, infinite without one."""
        return math.inf if self._deadline_s is None else self._deadline_s - time.monotonic()

    def check(self) -> None:
        """Raise RequestCancelled or DeadlineExceeded if the context is dead."""
        if self._cancelled:
            raise RequestCancelled("the caller has disconnected")
        if self.late:
            raise DeadlineExceeded("the deadline has passed: allow more time, or request less")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Check the context, then time the block as a stage. Raises as `check`."""
        self.check()
        started_ns = time.monotonic_ns()
        try:
            yield
        finally:
            self.record(name, started_ns)

    def record(self, name: str, started_ns: int) -> None:
        """Record a stage that began at `started_ns` of the monotonic clock and ends now."""
        self.stages.append(Stage(name, started_ns, time.monotonic_ns()))


# of the current asyncio task
current_request: ContextVar[RequestContext] = ContextVar("request_context")
