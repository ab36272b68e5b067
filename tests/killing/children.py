"""Run the command in real processes, and kill them with SIGKILL at a numbered step or after some time.

A step is a call that changes the disk: a system call (fsync, rename, unlink, mkdir, ...) or a commit of the catalog.
What a process leaves that is killed before a step are the files as they are then: one run can copy all these states.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests import commands

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
    copied: str = ""  # a folder, which is copied
    copies: str = ""  # to a folder in this one, named after the step,
    copy_before: tuple[int, ...] = ()  # before each of these steps


def run(request: Request) -> int:
    """Run a command to its end, and return its exit code, the negative number of the signal that killed it."""
    before = f"from tests.killing.children import prepare; prepare({json.dumps(asdict(request))!r})"
    with commands.start(*request.arguments, environment=os.environ | {"COLUMNS": "500"}, before=before) as process:
        try:
            return process.wait(DEADLINE_S if request.kill_after_s is None else request.kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def prepare(request_json: str) -> None:
    """Begin a command's process: both streams to the file, small shards, and every step counted."""
    request = Request(**json.loads(request_json))
    stream = os.open(request.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(stream, standard)
    pipeline: Any = sys.modules["whatwhere.indexer.pipeline.run"]
    pipeline.SHARD_SOURCES = SHARD_SOURCES
    _count_steps(request)


def _count_steps(request: Request) -> None:
    """Wrap every step: log and count it, and die before the step of the request."""
    from sqlalchemy.engine.default import DefaultDialect  # noqa: PLC0415 - imported before the fork

    counted = 0
    copying = False  # which takes steps, too
    trace = os.open(request.trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if request.trace else None

    def step(name: str) -> None:
        nonlocal counted, copying
        if copying:
            return
        if trace is not None:
            os.write(trace, f"{name}\n".encode())
        if counted in request.copy_before and os.path.exists(request.copied):
            copying = True
            shutil.copytree(request.copied, os.path.join(request.copies, str(counted)))
            copying = False
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
