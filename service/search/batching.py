"""Run the network in a single thread, and describe queued uploads as one batch.

Concurrent forward passes slow each other down: each of them already uses all cores, or the whole device.
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

_PATIENCE_S = 10.0  # close() waits no longer than this for a running forward pass

_Result = TypeVar("_Result")
log = logging.getLogger(__name__)


@dataclass
class _Job:
    """A job of the queue: an image to describe, or other `work` with the network, which runs alone."""

    context: RequestContext
    queued_ns: int = field(default_factory=time.monotonic_ns)
    answer: Future[Any] = field(default_factory=Future)
    describer: Describer | None = None
    pixels: NDArray[np.uint8] | None = None
    crop: Region = WHOLE_IMAGE
    work: Callable[[], Any] | None = None


class InferenceBatcher:
    """Run jobs from many threads in order of arrival; cancelled and late jobs are skipped.

    At most `batch_size` images are described together; an image waits at most `batch_delay_s` seconds for others.
    `on_batch` is called with the size of each batch. `initializer` is called once in the batcher's thread.
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
        self.failures = 0  # consecutive ones; a caller's mistake does not count
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the batcher."""
        self.close()

    def close(self) -> None:
        """Finish the running batch, and refuse queued jobs with ServerNotReady."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_PATIENCE_S)

    @property
    def busy_s(self) -> float:
        """Seconds since the running batch began; 0 if the thread is idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def describe(
        self,
        describer: Describer,
        pixels: NDArray[np.uint8],
        crop: Region = WHOLE_IMAGE,
        context: RequestContext | None = None,
    ) -> Description:
        """Describe one resized image, uint8 [h, w, 3], as `Describer.describe` does; blocks until it is done.

        Raises ServerNotReady if the batcher is closed, and RequestCancelled or DeadlineExceeded if the context dies in
        the queue.
        """
        described: Description = self._wait(
            _Job(context or RequestContext(), describer=describer, pixels=pixels, crop=crop)
        )
        return described

    def run(self, work: Callable[[], _Result], context: RequestContext | None = None) -> _Result:
        """Run `work` alone in the network's thread; blocks until it is done. Raises as `describe`."""
        result: _Result = self._wait(_Job(context or RequestContext(), work=work))
        return result

    def _wait(self, job: _Job) -> Any:
        with self._changed:
            if self._closed:
                raise ServerNotReady("the server is stopping: try again later, or use another server")
            self._jobs.append(job)
            self._changed.notify_all()
        return job.answer.result()

    # --- in the batcher's thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        self._initializer()
        while batch := self._next_batch():
            self._busy_since = time.monotonic()
            try:
                self._do(batch)
            finally:
                self._busy_since = None
                del batch  # an idle thread would keep its images and describer alive

    def _next_batch(self) -> list[_Job]:
        """Wait for the next batch; empty if the batcher is closed."""
        with self._changed:
            while not self._closed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                self._await_company()
                self._drop_dead()
                if self._jobs and not self._closed:
                    return self._take()
            for job in self._jobs:
                job.answer.set_exception(
                    ServerNotReady("the server is stopping: try again later, or use another server")
                )
            return []

    def _await_company(self) -> None:
        """If the first job is an image, wait for others until the batch is full or the delay has passed."""
        if self._jobs and self._jobs[0].work is None and self._batch_delay_s > 0:
            waited_s = (time.monotonic_ns() - self._jobs[0].queued_ns) / 1e9
            self._changed.wait_for(
                lambda: self._closed or len(self._jobs) >= self._batch_size, max(0.0, self._batch_delay_s - waited_s)
            )

    def _drop_dead(self) -> None:
        alive = deque[_Job]()
        for job in self._jobs:
            try:
                job.context.check()
            except WhatwhereError as error:
                job.answer.set_exception(error)
            else:
                alive.append(job)
        self._jobs = alive

    def _take(self) -> list[_Job]:
        """Take the first job. If it is an image, also take the following images with the same describer."""
        first = self._jobs.popleft()
        batch = [first]
        if first.work is None:
            while len(batch) < self._batch_size and self._jobs and self._jobs[0].describer is first.describer:
                batch.append(self._jobs.popleft())
        return batch

    def _do(self, batch: Sequence[_Job]) -> None:
        for job in batch:
            job.context.record("queue", job.queued_ns)
        try:
            results = [batch[0].work()] if batch[0].work is not None else self._described(batch)
        except WhatwhereError as error:
            _fail(batch, error)
        except Exception as error:  # the request reports it; this thread continues
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
            job.context.record("activations", started_ns)
        started_ns = time.monotonic_ns()
        descriptions = describer.describe_activations(activations, [job.crop for job in batch])
        for job in batch:
            job.context.record("factorise", started_ns)
        return descriptions


def _fail(batch: Sequence[_Job], error: Exception) -> None:
    for job in batch:
        job.answer.set_exception(error)
