"""One request's leave to work: whether somebody still waits for the answer, and how long each stage took."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from whatwhere.indexer.errors import DeadlineExceeded, RequestCancelled


@dataclass(frozen=True)
class Stage:
    """A finished stage, between two readings of the monotonic clock."""

    name: str
    started_ns: int
    ended_ns: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended_ns - self.started_ns) / 1e9


class RequestContext:
    """Handed from room to room with a request, from thread to thread, by one of them at a time.

    `deadline_s` is on the monotonic clock. Nothing expensive begins on a dead context.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        self.stages: list[Stage] = []
        self._deadline_s = deadline_s
        self._cancelled = False

    def cancel(self) -> None:
        """Say that nobody waits any more."""
        self._cancelled = True

    @property
    def dead(self) -> bool:
        """Whether the answer would come to nobody, or too late."""
        return self._cancelled or self.late

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.remaining_s <= 0

    @property
    def remaining_s(self) -> float:
        """How long it is until the deadline, below 0 after it."""
        return math.inf if self._deadline_s is None else self._deadline_s - time.monotonic()

    def check(self) -> None:
        """Raise RequestCancelled or DeadlineExceeded on a dead context."""
        if self._cancelled:
            raise RequestCancelled("nobody waits for the answer any more")
        if self.late:
            raise DeadlineExceeded("the deadline passed before the answer was there: allow more time, or ask for less")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Check, then time what is done inside."""
        self.check()
        started_ns = time.monotonic_ns()
        try:
            yield
        finally:
            self.record(name, started_ns)

    def record(self, name: str, started_ns: int) -> None:
        """Note a stage that began then and ends now."""
        self.stages.append(Stage(name, started_ns, time.monotonic_ns()))


# the request that this task or thread works for
current_request: ContextVar[RequestContext] = ContextVar("request_context")
