"""The one thread that the network runs on: uploads that wait together are described together.

More than one forward pass at once makes all of them slower: each already uses every core, or the whole device.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.boxes import WHOLE_IMAGE
from whatwhere.indexer.errors import ServerNotReady, WhatwhereError
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.regions import Region
from whatwhere.service.request_context import RequestContext

_PATIENCE_S = 10.0  # at the end a forward pass that goes on is not waited for any longer

_Result = TypeVar("_Result")
log = logging.getLogger(__name__)


@dataclass
class _Job:
    """Something for the network: a picture to describe, or `work` of another kind, which is done alone."""

    ticket: RequestContext
    queued_ns: int = field(default_factory=time.monotonic_ns)
    answer: Future[Any] = field(default_factory=Future)
    describer: Describer | None = None
    pixels: NDArray[np.uint8] | None = None
    crop: Region = WHOLE_IMAGE
    work: Callable[[], Any] | None = None


class InferenceBatcher:
    """Takes jobs from many threads, in their order; what nobody waits for any more is left out.

    A picture waits at most `batch_delay_s` for others to be described with, `batch_size` at once. `on_batch` is told
    how many they were; `initializer` is called by the thread at its start.
    """

    def __init__(
        self,
        batch_size: int = 1,
        batch_delay_s: float = 0,
        on_batch: Callable[[int], None] | None = None,
        initializer: Callable[[], None] | None = None,
    ) -> None:
        self._batch_size = batch_size
        self._batch_delay_s = batch_delay_s
        self._on_batch = on_batch or (lambda _: None)
        self._initializer = initializer or (lambda: None)
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._busy_since: float | None = None
        self.failures = 0  # in a row, that were not the caller's
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.close()

    def close(self) -> None:
        """End with the job that is being done; those that wait are refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_PATIENCE_S)

    @property
    def busy_s(self) -> float:
        """For how long the jobs of now have been going on; 0 when there are none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def describe(
        self,
        describer: Describer,
        pixels: NDArray[np.uint8],
        crop: Region = WHOLE_IMAGE,
        ticket: RequestContext | None = None,
    ) -> Description:
        """Describe one fitted picture uint8 [h, w, 3], as `Describer.describe` does; waits for its turn."""
        described: Description = self._wait(
            _Job(ticket or RequestContext(), describer=describer, pixels=pixels, crop=crop)
        )
        return described

    def run(self, work: Callable[[], _Result], ticket: RequestContext | None = None) -> _Result:
        """Do something else with the network, alone; waits for its turn."""
        result: _Result = self._wait(_Job(ticket or RequestContext(), work=work))
        return result

    def _wait(self, job: _Job) -> Any:
        with self._changed:
            if self._closed:
                raise ServerNotReady("the server is stopping: ask another one, or again later")
            self._jobs.append(job)
            self._changed.notify_all()
        return job.answer.result()

    # --- the thread's own side ------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._initializer()
        while batch := self._next_batch():
            self._busy_since = time.monotonic()
            try:
                self._do(batch)
            finally:
                self._busy_since = None
                del batch  # until the next one comes, it would hold what it was for

    def _next_batch(self) -> list[_Job]:
        """Wait for the next jobs to be done together; none at the end."""
        with self._changed:
            while not self._closed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                self._await_company()
                self._drop_dead()
                if self._jobs and not self._closed:
                    return self._take()
            for job in self._jobs:
                job.answer.set_exception(ServerNotReady("the server is stopping: ask another one"))
            return []

    def _await_company(self) -> None:
        """Let the first job, where it is a picture, wait for others to be described with."""
        if self._jobs and self._jobs[0].work is None and self._batch_delay_s > 0:
            waited_s = (time.monotonic_ns() - self._jobs[0].queued_ns) / 1e9
            self._changed.wait_for(
                lambda: self._closed or len(self._jobs) >= self._batch_size, max(0.0, self._batch_delay_s - waited_s)
            )

    def _drop_dead(self) -> None:
        alive = deque[_Job]()
        for job in self._jobs:
            try:
                job.ticket.check()
            except WhatwhereError as error:
                job.answer.set_exception(error)
            else:
                alive.append(job)
        self._jobs = alive

    def _take(self) -> list[_Job]:
        """Take the first job, and with a picture those behind it that the same describer describes."""
        first = self._jobs.popleft()
        batch = [first]
        if first.work is None:
            while len(batch) < self._batch_size and self._jobs and self._jobs[0].describer is first.describer:
                batch.append(self._jobs.popleft())
        return batch

    def _do(self, batch: Sequence[_Job]) -> None:
        for job in batch:
            job.ticket.record("queue", job.queued_ns)
        try:
            results = [batch[0].work()] if batch[0].work is not None else self._described(batch)
        except WhatwhereError as error:
            _fail(batch, error)
        except Exception as error:  # the request that asked answers for it; this thread goes on
            self.failures += 1
            _fail(batch, error)
        else:
            self.failures = 0
            for job, result in zip(batch, results, strict=True):
                job.answer.set_result(result)

    def _described(self, batch: Sequence[_Job]) -> list[Description]:
        describer = batch[0].describer
        assert describer is not None
        self._on_batch(len(batch))
        started_ns = time.monotonic_ns()
        activations = describer.backbone.activations([job.pixels for job in batch if job.pixels is not None])
        for job in batch:
            job.ticket.record("activations", started_ns)
        started_ns = time.monotonic_ns()
        descriptions = describer.describe_activations(activations, [job.crop for job in batch])
        for job in batch:
            job.ticket.record("factorise", started_ns)
        return descriptions


def _fail(batch: Sequence[_Job], error: Exception) -> None:
    for job in batch:
        job.answer.set_exception(error)
