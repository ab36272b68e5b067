"""For what comes by itself, in another thread or process."""

import time
from collections.abc import Callable

LONGEST_S = 30.0


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something is so; fail where it never is."""
    deadline = time.monotonic() + LONGEST_S
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
