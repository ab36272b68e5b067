"""The command as people run it: a process with arguments and an environment, what it prints, and how it ends.

`run` forks it from a process that has imported the product and loaded the default network: 0.1 s where an interpreter
that starts takes 5. `run_afresh` starts an interpreter, as a shell does: at least one test of each command takes that.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
AFRESH = (sys.executable, "-m", "whatwhere.service.cli")
# One thread: where other processes compete for the cores, several are slower than one (measured: 5 times).
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# What commands import when they are run; OpenVINO and the network come with the first picture.
_MODULES = (
    *(f"indexer.{name}" for name in ("copying", "inspection", "pipeline", "removal", "train", "upkeep", "verify")),
    *(f"service.{name}" for name in ("asking", "cli", "figures", "illustrating", "server", "visualizing")),
    *(f"whatwhere.service.evaluation.{name}" for name in ("datasets", "report", "run")),
)


def run(
    *arguments: str | Path, timeout_s: float = 240, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end in a process that is forked for it, in this one's directory, without a terminal.

    `environment` is this process's where none is given.
    """
    with tempfile.TemporaryDirectory(prefix="whatwhere-command-") as folder:
        out, messages = Path(folder, "out"), Path(folder, "messages")
        request = {
            "arguments": [*map(str, arguments)],
            "environment": dict(os.environ if environment is None else environment),
            "directory": os.getcwd(),
            "streams": [str(out), str(messages)],
            "timeout_s": timeout_s,
        }
        code = _server().ask(request)
        if code is None:
            raise subprocess.TimeoutExpired([*arguments], timeout_s, out.read_bytes(), messages.read_bytes())
        return subprocess.CompletedProcess([*arguments], code, out.read_text(), messages.read_text())


def run_afresh(
    *arguments: str | Path, timeout_s: float = 240, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end as `run` does, in an interpreter of its own."""
    command = [*AFRESH, *map(str, arguments)]
    variables = (os.environ if environment is None else environment) | ONE_THREAD
    return subprocess.run(command, check=False, capture_output=True, text=True, env=variables, timeout=timeout_s)


class _Server:
    """The process that forks."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | ONE_THREAD,
        )

    def ask(self, request: dict[str, Any]) -> int | None:
        """Have a command run; return its exit code, None where it took too long and was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code: int | None = json.loads(self._process.stdout.readline())
        return code

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@functools.cache
def _server() -> _Server:
    started = _Server()
    atexit.register(started.close)
    return started


# --- the server's own side ----------------------------------------------------------------------------------------


def _serve() -> None:
    """Answer requests, a line of JSON each, with the exit code of their command."""
    for name in _MODULES:
        importlib.import_module(name)
    from tests.loading import loading_once  # noqa: PLC0415

    sys.modules["__main__"].__package__ = ""  # by which the usage would name this module
    with loading_once():
        backbone.load_backbone(registry.DEFAULT_BACKBONE, backbone.choose_device())
        gc.freeze()
        for line in sys.stdin:
            request = json.loads(line)
            process = os.fork()
            if process == 0:
                _be_the_command(request)
            print(json.dumps(_exit_code(process, request["timeout_s"])), flush=True)  # noqa: T201 - the answer


def _exit_code(process: int, timeout_s: float) -> int | None:
    """Wait for a process, and kill it after a time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def _be_the_command(request: dict[str, Any]) -> None:
    """Run the command as a process of its own would, and end."""
    code = 1
    try:
        for standard, path in zip((1, 2), request["streams"], strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), standard)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = ["whatwhere", *request["arguments"]]
        importlib.import_module("whatwhere.service.cli").main()
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


if __name__ == "__main__":
    _serve()
