"""Leave to work: lost with the caller or the deadline, and a record of what was done with it."""

import time

import pytest

from whatwhere.indexer.errors import DeadlineExceeded, RequestCancelled
from whatwhere.service.request_context import RequestContext


def test_a_ticket_without_a_deadline_is_good() -> None:
    """Work goes on, and is timed."""
    ticket = RequestContext()

    with ticket.stage("decode"):
        time.sleep(0.02)

    assert [stage.name for stage in ticket.stages] == ["decode"]
    assert 0.02 <= ticket.stages[0].seconds < 5


def test_nothing_begins_after_the_deadline() -> None:
    """A stage that would come too late does not run, and says so."""
    ticket, ran = RequestContext(deadline_s=time.monotonic() - 1), []

    with pytest.raises(DeadlineExceeded), ticket.stage("search"):
        ran.append("search")

    assert ran == []
    assert ticket.dead
    assert ticket.stages == []


def test_nothing_begins_for_a_caller_that_has_gone() -> None:
    """Before the deadline too."""
    ticket = RequestContext(deadline_s=time.monotonic() + 1000)
    ticket.cancel()

    with pytest.raises(RequestCancelled):
        ticket.check()

    assert ticket.dead
    assert not ticket.late


def test_a_stage_that_fails_is_timed_all_the_same() -> None:
    """The log says how long it took to fail."""
    ticket = RequestContext()

    with pytest.raises(ZeroDivisionError), ticket.stage("decode"):
        _ = 1 / 0

    assert [stage.name for stage in ticket.stages] == ["decode"]
