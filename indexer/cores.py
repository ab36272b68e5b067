"""Count the cores that this process may use. Imports no numeric library."""

import math
import os
import sys
from pathlib import Path, PurePosixPath

_PROCESS = Path("/proc/self")


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1: its affinity, and its cgroups' CPU quota.

    A quota is rounded down. Threads beyond it are throttled: all of them stand still for up to 0.1 s at a time.
    From Python 3.13 on, `PYTHON_CPU_COUNT` and `-X cpu_count` override both.
    """
    override = sys._xoptions.get("cpu_count") or os.environ.get("PYTHON_CPU_COUNT") or "default"
    if override != "default" and hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    return max(1, math.floor(min(_assigned_cores(), cpu_quota(_PROCESS))))


def limit_library_threads() -> None:
    """Let the numeric libraries start as many threads as there are available cores; call it before their import.

    Only under a CPU quota: without one they count the cores themselves. `OMP_NUM_THREADS` overrides it.
    """
    if available_cores() < _assigned_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))  # OpenMP's, OpenBLAS's and MKL's


def cpu_quota(process: Path) -> float:
    """Return the CPU quota of a process in cores, by its folder in /proc: the lowest of its cgroups and theirs above.

    Both versions of cgroups. Infinite without a quota, and on systems without cgroups.
    """
    lowest = math.inf
    try:
        paths = _cgroups((process / "cgroup").read_text())
        mounts = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return lowest
    for mount in mounts:
        fields, _, filesystem = mount.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        if kind != "cgroup2" and not (kind == "cgroup" and "cpu" in options.split(",")):
            continue
        root, folder = (field.replace("\\040", " ") for field in fields.split()[3:5])
        inside = _inside(PurePosixPath(paths.get(kind, "/")), PurePosixPath(root))
        for group in (inside, *inside.parents):
            lowest = min(lowest, _quota(Path(folder) / group))
    return lowest


def _assigned_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroups(listed: str) -> dict[str, str]:
    """Return the process's path in cgroups of version 2, and in the hierarchy that version 1 has for the CPU."""
    found = {}
    for line in listed.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            found["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            found["cgroup"] = path
    return found


def _inside(path: PurePosixPath, root: PurePosixPath) -> PurePosixPath:
    """Return the path below a mount's root; the mount itself in a container that shows no more than its own cgroup."""
    return path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()


def _quota(group: Path) -> float:
    """Return the quota of one cgroup, infinite if it has none."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    except OSError:  # the root, or a cgroup without this controller
        return math.inf
    return int(quota) / int(period) if quota.isdigit() else math.inf  # "max", "-1": none
