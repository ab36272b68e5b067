"""Wait for a condition that another thread or process fulfills."""

import time
from collections.abc import Callable

LONGEST_S = 30.0


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until the condition holds. Raises AssertionError after 30 seconds."""
    deadline = time.monotonic() + LONGEST_S
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
