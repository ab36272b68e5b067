"""Run the command in real processes, and kill them with SIGKILL at a numbered step or after some time.

A step is a call that changes the disk: a system call (fsync, rename, unlink, mkdir, ...) or a commit of the catalog. A
fork server imports everything once and forks a process for each command, so that a kill takes one second, not five.
"""

import contextlib
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STEPS = ("fsync", "replace", "rename", "link", "unlink", "remove", "rmdir", "mkdir", "ftruncate", "truncate")
SHARD_SOURCES = 2  # so small that few pictures fill several shards
DEADLINE_S = 120.0


@dataclass(frozen=True)
class Request:
    """Hold a command, and when to kill it: before step `kill_before` (from 0 on), or after `kill_after_s`."""

    arguments: tuple[str, ...]
    output: str  # a file for both streams
    trace: str = ""  # a file for the names of the steps, one a line
    kill_before: int | None = None
    kill_after_s: float | None = None


class ForkServer:
    """Control a process that has imported the command and forks a child for each request."""

    def __enter__(self) -> Self:
        """Start the fork server."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killing.children"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "500"},
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Stop the fork server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def run(self, request: Request) -> int:
        """Run a command to its end and return its exit code, the negative number of the signal that killed it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(request)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def serve() -> None:
    """Run the command of each request (a line of JSON), and print its exit code."""
    for name in (
        "whatwhere.indexer.pipeline.run",
        "whatwhere.indexer.maintenance.remove",
        "whatwhere.indexer.maintenance.rebuild",
        "whatwhere.service.cli",
    ):
        importlib.import_module(name)

    pipeline: Any = sys.modules["whatwhere.indexer.pipeline.run"]
    pipeline.SHARD_SOURCES = SHARD_SOURCES
    networks: Any = sys.modules["whatwhere.indexer.pipeline.choose_recipe"]
    networks.load_backbone = functools.cache(networks.load_backbone)  # a third of what a run costs
    networks.load_backbone(
        networks.DEFAULT_BACKBONE, networks.choose_device("auto"), weights=None, precision=networks.DEFAULT_PRECISION
    )
    for line in sys.stdin:
        values = json.loads(line)
        request = Request(**values | {"arguments": tuple(values["arguments"])})
        process = os.fork()
        if process == 0:
            _be_the_command(request)
        print(_exit_code(process, request.kill_after_s), flush=True)  # noqa: T201 - the answer


def _exit_code(process: int, kill_after_s: float | None) -> int:
    """Wait for a process; kill it after the given time, or after the deadline so that nothing hangs."""
    end = time.monotonic() + (DEADLINE_S if kill_after_s is None else kill_after_s)
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            end = float("inf")
        time.sleep(0.002)


def _be_the_command(request: Request) -> None:
    """Run the command like a separate process, and exit."""
    from whatwhere.service.cli import main  # noqa: PLC0415 - imported before the fork

    code = 1
    try:
        stream = os.open(request.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for standard in (1, 2):
            os.dup2(stream, standard)
        sys.stdin = open(os.devnull)  # noqa: SIM115 - the process ends
        sys.argv = ["whatwhere", *request.arguments]
        _count_steps(request)
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _count_steps(request: Request) -> None:
    """Wrap every step: log and count it, and die before the step of the request."""
    from sqlalchemy.engine.default import DefaultDialect  # noqa: PLC0415 - imported before the fork

    counted = 0
    trace = os.open(request.trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if request.trace else None

    def step(name: str) -> None:
        nonlocal counted
        if trace is not None:
            os.write(trace, f"{name}\n".encode())
        if counted == request.kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        counted += 1

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*arguments: Any, **options: Any) -> Any:
            step(f"{name} {_place(arguments)}")
            return function(*arguments, **options)

        return stepping

    for name in STEPS:
        setattr(os, name, wrapped(name, getattr(os, name)))
    commit = DefaultDialect.do_commit

    def do_commit(dialect: DefaultDialect, connection: Any) -> None:
        step("commit")
        commit(dialect, connection)

    DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]


def _place(arguments: tuple[Any, ...]) -> str:
    """Return the end of the path that a step changes."""
    named: Any = arguments[-1] if len(arguments) > 1 else arguments[0]
    if isinstance(named, int):
        with contextlib.suppress(OSError):
            named = os.readlink(f"/proc/self/fd/{named}")
    return "/".join(Path(str(named)).parts[-2:])


if __name__ == "__main__":
    serve()
