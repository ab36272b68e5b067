"""How many cores this process may use. Imports no numeric library."""

import os


def available_cores() -> int:
    """Count the cores that this process may use, at least 1: those that its affinity allows, where a system has that.

    From Python 3.13 on, `PYTHON_CPU_COUNT` and `-X cpu_count` override it.
    """
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
