"""Refuse calls in a process that was forked during a call of another thread: gRPC hangs in it, past every deadline.

Without a call, gRPC's own handlers make its channels usable in the new process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from whatwhere.indexer.errors import InvalidRequest

# No lock, which another thread may hold at the fork: adding and removing are atomic.
_calls: set[object] = set()
_cut_off = False


@contextmanager
def call() -> Iterator[None]:
    """Note a call while it lasts. Raises InvalidRequest in a process that was forked during one."""
    if _cut_off:
        raise InvalidRequest(
            "this process was forked while another thread's call was in flight, and gRPC cannot be used in it: fork "
            "before the calls, or use multiprocessing's start method spawn"
        )
    this = object()
    _calls.add(this)
    try:
        yield
    finally:
        _calls.discard(this)


def cut_off() -> bool:
    """Return whether this process was forked during a call."""
    return _cut_off


def _after_in_child() -> None:
    global _cut_off  # noqa: PLW0603 - a state of the process
    _cut_off = _cut_off or bool(_calls)


if hasattr(os, "register_at_fork"):  # absent on Windows
    os.register_at_fork(after_in_child=_after_in_child)
