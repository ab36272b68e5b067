"""End the process on a signal while there is nothing to clean up."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


def end_at_once(number: int, _: FrameType | None) -> NoReturn:
    """End the process as the signal would, without clean-up.

    The kernel's own default does not suffice: it ignores SIGTERM in process 1, the first of a container.
    """
    os._exit(128 + number)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process at once during a block, such as imports.

    A signal that is ignored stays so. For the main thread.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end_at_once)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
