"""Count the cores that are available to this process. Imports no numeric library."""

import os


def available_cores() -> int:
    """Return the number of cores in this process's affinity if the system has one, else of the machine; at least 1.

    From Python 3.13 on, `PYTHON_CPU_COUNT` and `-X cpu_count` override it.
    """
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
