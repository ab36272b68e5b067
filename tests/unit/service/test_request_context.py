"""Leave to work: lost with the caller or the deadline, and a record of what was done with it."""

import time

import pytest

from whatwhere.indexer.errors import DeadlineExceeded, RequestCancelled
from whatwhere.service.request_context import RequestContext


def test_a_context_without_a_deadline_is_good() -> None:
    """Work goes on, and is timed."""
    context = RequestContext()

    with context.stage("decode"):
        time.sleep(0.02)

    assert [stage.name for stage in context.stages] == ["decode"]
    assert 0.02 <= context.stages[0].seconds < 5


def test_nothing_begins_after_the_deadline() -> None:
    """A stage that would come too late does not run, and says so."""
    context, ran = RequestContext(deadline_s=time.monotonic() - 1), []

    with pytest.raises(DeadlineExceeded), context.stage("search"):
        ran.append("search")

    assert ran == []
    assert context.late
    assert context.stages == []


def test_nothing_begins_for_a_caller_that_has_gone() -> None:
    """Before the deadline too."""
    context = RequestContext(deadline_s=time.monotonic() + 1000)
    context.cancel()

    with pytest.raises(RequestCancelled):
        context.check()

    assert not context.late


def test_a_stage_that_fails_is_timed_all_the_same() -> None:
    """The log says how long it took to fail."""
    context = RequestContext()

    with pytest.raises(ZeroDivisionError), context.stage("decode"):
        _ = 1 / 0

    assert [stage.name for stage in context.stages] == ["decode"]
