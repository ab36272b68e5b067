"""The cores that a process may use: its cgroups' quota bounds its threads."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from whatwhere.indexer.cores import cpu_quota

V1 = Path("/sys/fs/cgroup/cpu")


def process(tmp_path: Path, cgroup: str, root: str, kind: str, **quotas: str) -> Path:
    """Return a folder as /proc has it, of a process in this cgroup; `quotas` are the files of each folder's limit."""
    mounted = tmp_path / "mounted"
    for name, content in quotas.items():
        folder, _, file = name.rpartition("/")
        (mounted / folder).mkdir(parents=True, exist_ok=True)
        (mounted / folder / file).write_text(content)
    number = "0::" if kind == "cgroup2" else "4:cpu,cpuacct:"
    (tmp_path / "cgroup").write_text(f"7:memory:/elsewhere\n{number}{cgroup}\n")
    (tmp_path / "mountinfo").write_text(
        "31 23 0:28 / /proc rw,relatime - proc proc rw\n"
        f"32 31 0:29 {root} {mounted} rw,relatime shared:9 - {kind} cgroup rw,cpu,cpuacct\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("cgroup", "root", "kind", "files", "expected"),
    [
        ("/a/b", "/", "cgroup2", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "max 100000\n"}, 0.5),
        ("/a/b", "/", "cgroup2", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("/", "/", "cgroup2", {"cpu.max": "300000 100000\n"}, 3.0),  # a container with a namespace of its own
        (
            "/docker/12ab",
            "/docker/12ab",
            "cgroup",
            {"cpu.cfs_quota_us": "25000\n", "cpu.cfs_period_us": "50000\n"},
            0.5,
        ),
        ("/docker/12ab", "/other", "cgroup", {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, math.inf),
        ("/a", "/", "cgroup2", {"a/cpu.weight": "100\n"}, math.inf),
    ],
)
def test_the_lowest_quota_above_a_process_counts(
    tmp_path: Path, cgroup: str, root: str, kind: str, files: dict[str, str], expected: float
) -> None:
    """Of version 1 and 2, seen from the host and from inside a container; infinite without one."""
    assert cpu_quota(process(tmp_path, cgroup, root, kind, **files)) == expected


@pytest.mark.skipif(not os.access(V1, os.W_OK), reason="needs a writable cgroup of version 1, as root")
def test_a_process_under_a_real_quota_starts_one_thread_a_core() -> None:
    """Half a core is one thread, for ours and for the numeric libraries."""
    group = V1 / f"whatwhere-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("50000")
        code = (
            f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
            "from whatwhere.indexer.cores import available_cores, limit_library_threads\n"
            "limit_library_threads(); print(available_cores(), os.environ.get('OMP_NUM_THREADS', '1'))"
        )
        variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=True)
    finally:
        group.rmdir()

    assert done.stdout == "1 1\n"
