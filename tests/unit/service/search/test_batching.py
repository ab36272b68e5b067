"""One thread for the network: what waits together is described together, and nothing is done for the dead."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from whatwhere.indexer.backbones.backbone import choose_device, load_backbone
from whatwhere.indexer.boxes import Box
from whatwhere.indexer.errors import RequestCancelled, ServerNotReady
from whatwhere.indexer.features.describe import Describer
from whatwhere.service.request_context import RequestContext
from whatwhere.service.search.batching import InferenceBatcher


@pytest.fixture(scope="module")
def describer() -> Describer:
    """Give the default network at rank 4, with a pooled descriptor that crops."""
    return Describer(load_backbone("efficientnet-lite0", choose_device("cpu")), 4, ("mac",))


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    """Give threads to ask from."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (64, 96, 3), dtype=np.uint8)


class Held:
    """A network that is busy until it is let go."""

    def __init__(self, batcher: InferenceBatcher, callers: ThreadPoolExecutor) -> None:
        self._go, begun = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            self._go.wait(30)

        self.done = callers.submit(batcher.run, wait)
        assert begun.wait(30)

    def let_go(self) -> None:
        self._go.set()
        self.done.result(30)


def queued(batcher: InferenceBatcher, count: int, submit: Callable[[], "Future[object]"]) -> "Future[object]":
    """Submit one more, and wait until so many are in the queue."""
    future = submit()
    deadline = time.monotonic() + 30
    while len(batcher._jobs) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return future


def test_pictures_that_wait_together_are_described_together(describer: Describer, callers: ThreadPoolExecutor) -> None:
    """Three wait while the network is busy: a batch of two, and the third with its own crop, as each alone."""
    batches: list[int] = []
    crops = [Box(0, 0, 0.5, 1), Box(0, 0, 1, 1), Box(0.5, 0, 1, 1)]
    with InferenceBatcher(batch_size=2, on_batch=batches.append) as batcher:
        held = Held(batcher, callers)
        waiting = [
            queued(batcher, n + 1, lambda n=n: callers.submit(batcher.describe, describer, picture(n), crops[n]))
            for n in range(3)
        ]
        held.let_go()
        described = [future.result(30) for future in waiting]

    assert batches == [2, 1]
    for n, found in enumerate(described):
        (alone,) = describer.describe([picture(n)], crops[n])
        np.testing.assert_allclose(found.factors.what, alone.factors.what, atol=2)
        np.testing.assert_allclose(found.pooled["mac"].astype(float), alone.pooled["mac"].astype(float), atol=2)


def test_a_lone_picture_waits_no_longer_than_the_delay(describer: Describer) -> None:
    """And with company that fills the batch not at all."""
    with InferenceBatcher(batch_size=2, batch_delay_s=0.3) as batcher:
        started = time.monotonic()
        batcher.describe(describer, picture(0))
        alone_s = time.monotonic() - started

    assert 0.3 <= alone_s < 5


def test_company_within_the_delay_is_taken_along(describer: Describer, callers: ThreadPoolExecutor) -> None:
    """A full batch does not wait for the rest of a long delay."""
    batches: list[int] = []
    with InferenceBatcher(batch_size=2, batch_delay_s=60, on_batch=batches.append) as batcher:
        both = [callers.submit(batcher.describe, describer, picture(n)) for n in range(2)]
        for future in both:
            future.result(30)

    assert batches == [2]


def test_what_nobody_waits_for_is_not_done(describer: Describer, callers: ThreadPoolExecutor) -> None:
    """A caller goes while its picture is in the queue: the network never sees it."""
    batches: list[int] = []
    context = RequestContext()
    with InferenceBatcher(on_batch=batches.append) as batcher:
        held = Held(batcher, callers)
        future = queued(batcher, 1, lambda: callers.submit(batcher.describe, describer, picture(0), context=context))
        context.cancel()
        held.let_go()
        with pytest.raises(RequestCancelled):
            future.result(30)

    assert batches == []


def test_who_goes_while_company_is_waited_for_is_not_served(describer: Describer, callers: ThreadPoolExecutor) -> None:
    """The last look is when the batch is taken."""
    batches: list[int] = []
    context = RequestContext()
    with InferenceBatcher(batch_size=2, batch_delay_s=1, on_batch=batches.append) as batcher:
        future = queued(batcher, 1, lambda: callers.submit(batcher.describe, describer, picture(0), context=context))
        time.sleep(0.1)  # it has been looked at, and waits for company
        context.cancel()
        with pytest.raises(RequestCancelled):
            future.result(30)

    assert batches == []


def test_other_work_comes_in_its_turn_and_alone(describer: Describer, callers: ThreadPoolExecutor) -> None:
    """Between two pictures, which are not described together across it."""
    order: list[object] = []
    with InferenceBatcher(batch_size=8, on_batch=order.append) as batcher:
        held = Held(batcher, callers)
        waiting = [
            queued(batcher, 1, lambda: callers.submit(batcher.describe, describer, picture(0))),
            queued(batcher, 2, lambda: callers.submit(batcher.run, lambda: order.append("work"))),
            queued(batcher, 3, lambda: callers.submit(batcher.describe, describer, picture(1))),
        ]
        held.let_go()
        for future in waiting:
            future.result(30)

    assert order == [1, "work", 1]


def test_a_failure_is_its_callers_and_the_network_goes_on(describer: Describer) -> None:
    """Failures in a row are counted until something goes well."""
    with InferenceBatcher() as batcher:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                batcher.run(lambda: 1 / 0)
        failures = batcher.failures
        batcher.describe(describer, picture(0))

        assert (failures, batcher.failures) == (2, 0)


def test_stages_are_on_the_context(describer: Describer) -> None:
    """Waiting, the forward pass, the factorisation."""
    context = RequestContext()
    with InferenceBatcher() as batcher:
        batcher.describe(describer, picture(0), context=context)

    assert [stage.name for stage in context.stages] == ["queue", "activations", "factorise"]


def test_a_network_that_is_closed_refuses_what_waits_and_what_comes(
    describer: Describer, callers: ThreadPoolExecutor
) -> None:
    """What is being done ends well."""
    batcher = InferenceBatcher()
    held = Held(batcher, callers)
    waiting = queued(batcher, 1, lambda: callers.submit(batcher.describe, describer, picture(0)))
    closing = callers.submit(batcher.close)
    held.let_go()
    closing.result(30)

    with pytest.raises(ServerNotReady):
        waiting.result(30)
    with pytest.raises(ServerNotReady):
        batcher.describe(describer, picture(0))


def test_for_how_long_it_has_been_busy(callers: ThreadPoolExecutor) -> None:
    """By which a watcher sees that it does not come back."""
    with InferenceBatcher() as batcher:
        idle = batcher.busy_s
        held = Held(batcher, callers)
        time.sleep(0.05)
        busy = batcher.busy_s
        held.let_go()

    assert idle == 0
    assert busy >= 0.05
