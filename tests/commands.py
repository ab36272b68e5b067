"""The command as people run it: a process with arguments and an environment, what it prints, and how it ends.

`run` and `start` fork it from a process that has imported the product and loaded the default network: 0.1 s where an
interpreter that starts takes 5. It can be stopped and killed as any other. `run_afresh` starts an interpreter, as a
shell does: at least one test of each command takes that.
"""

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import re
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parent.parent
AFRESH = (sys.executable, "-m", "whatwhere.service.cli")
# One thread: where other processes compete for the cores, several are slower than one (measured: 5 times).
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# What commands import when they are run; OpenVINO and the network come with the first picture.
_MODULES = (
    "alembic.command",
    "typer._adapters",
    "typer.rich_utils",
    "whatwhere.indexer.backbones.torchvision_networks",
    "whatwhere.indexer.maintenance.transfer",
    "whatwhere.indexer.maintenance.info",
    "whatwhere.indexer.metadata.filter_grammar",
    "whatwhere.indexer.pipeline.run",
    "whatwhere.indexer.maintenance.remove",
    "whatwhere.indexer.pipeline.train_whiteners",
    "whatwhere.indexer.maintenance.compact",
    "whatwhere.indexer.maintenance.rebuild",
    "whatwhere.indexer.maintenance.repair",
    "whatwhere.indexer.maintenance.verify",
    "whatwhere.service.local.search",
    "whatwhere.service.cli",
    "whatwhere.service.evaluation.retrieval.datasets",
    "whatwhere.service.evaluation.retrieval.report",
    "whatwhere.service.evaluation.retrieval.run",
    "whatwhere.service.drawing.explanation",
    "whatwhere.service.drawing.visualization",
    "whatwhere.service.local.collection",
    "whatwhere.service.local.explain",
    "whatwhere.service.local.files",
    "whatwhere.service.server",
    "whatwhere.service.local.visualize",
)
SHARED = "WHATWHERE_TESTS_SHARED"  # the variable that names the folder that all processes of a run of the tests share
_LONGEST_REQUEST = 1 << 20
_PASSWORD = "s3cret"  # of the role `locked`, see tests/postgres.py
_TOKEN = re.compile(r"\bww_[\w-]{43}")  # `token create` prints it, on standard output


def run(
    *arguments: str | Path, timeout_s: float = 240, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end in a process that is forked for it, in this one's directory, without a terminal.

    `environment` is this process's where none is given.
    """
    with start(*arguments, environment=environment) as process:
        out, messages = process.communicate(timeout_s)
    check_no_secret(out, messages)
    return subprocess.CompletedProcess([*arguments], process.wait(), out, messages)


def run_afresh(
    *arguments: str | Path, timeout_s: float = 240, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end as `run` does, in an interpreter of its own."""
    command = [*AFRESH, *map(str, arguments)]
    variables = {**(os.environ if environment is None else environment), **ONE_THREAD}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables, timeout=timeout_s)
    check_no_secret(done.stdout, done.stderr)
    return done


def check_no_secret(printed: str, messages: str) -> None:
    """Raise AssertionError if output shows the password of the tests' databases, or a message shows a token."""
    shown = _PASSWORD if _PASSWORD in printed + messages else _TOKEN.search(messages)
    assert shown is None, f"a secret is shown:\n{messages}"


def start(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, before: str = "", stderr: int | None = None
) -> "Process":
    """Start the command in a process that is forked for it.

    `before` is code that it runs first; `stderr` is a file descriptor in the place of a pipe.
    """
    request = {
        "arguments": [*map(str, arguments)],
        "environment": dict(os.environ if environment is None else environment),
        "directory": os.getcwd(),
        "before": before,
    }
    return Process(request, stderr)


def run_code(code: str, *arguments: str | Path) -> int:
    """Run Python in a process that is forked for it, as `python -c` does, and return its exit code."""
    with start(*arguments, before=f"{code}\nraise SystemExit(0)") as process:
        process.communicate(timeout=240)
    return process.wait()


class Process:
    """A running command; what it has of `subprocess.Popen` means what it means there."""

    def __init__(self, request: Mapping[str, Any], stderr: int | None) -> None:
        out, its_out = os.pipe()
        messages, its_messages = os.pipe() if stderr is None else (None, os.dup(stderr))
        self._ended, its_end = os.pipe()
        try:
            self.pid = _server().fork(request, [its_out, its_messages, its_end])
        finally:
            for its in (its_out, its_messages, its_end):
                os.close(its)
        self.args = request["arguments"]
        self.stdout: IO[str] = open(out)  # noqa: SIM115 - closed at the end
        self.stderr: IO[str] | None = None if messages is None else open(messages)  # noqa: SIM115
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Wait for its end, which is soon where an error came first."""
        if error is not None:
            self.kill()
        self.stdout.close()
        if self.stderr is not None:
            self.stderr.close()
        self.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._code(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code, once it has ended."""
        code = self._code(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return all that it prints, once it has ended; kill it where that takes too long."""
        late = threading.Event()

        def end() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

        timer = threading.Timer(timeout or threading.TIMEOUT_MAX, end)
        timer.start()
        with ThreadPoolExecutor(1) as pool:
            messages = pool.submit(lambda: "" if self.stderr is None else self.stderr.read())
            printed = self.stdout.read(), messages.result()
        timer.cancel()
        self.wait()
        if late.is_set():
            raise subprocess.TimeoutExpired(self.args, timeout or 0, *printed)
        return printed

    def _code(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            self.returncode = int(os.read(self._ended, 16))
            os.close(self._ended)
        return self.returncode


class _Server:
    """The process that forks, as this one sees it: one for all processes of a run of the tests.

    The first that needs it starts it. It ends with the last of them.
    """

    def __init__(self, folder: Path) -> None:
        self._one_at_a_time = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST_REQUEST)
        address = str(folder / "commands")
        with (folder / "commands.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self._socket.connect(address)
            except (FileNotFoundError, ConnectionRefusedError):  # not started, or ended with those that used it
                Path(address).unlink(missing_ok=True)
                _start_server(address)
                self._socket.connect(address)

    def fork(self, request: Mapping[str, Any], streams: list[int]) -> int:
        """Have a command started with these for what it prints, its messages and its exit code; return its number."""
        with self._one_at_a_time:
            socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
            return int(self._socket.recv(16))

    def close(self) -> None:
        """Need it no more."""
        self._socket.close()


def _start_server(address: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as its:
        its.bind(address)
        its.listen()  # connections wait until it has imported everything
        # What is started here forks the server and ends: others may need it longer than this process lives.
        subprocess.run(
            [sys.executable, "-m", "tests.commands", str(its.fileno())],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | ONE_THREAD,
            pass_fds=[its.fileno()],
        )


@functools.cache
def _server() -> _Server:
    if SHARED in os.environ:
        folder = Path(os.environ[SHARED])
    else:
        own = tempfile.TemporaryDirectory(prefix="whatwhere-commands-")
        atexit.register(own.cleanup)
        folder = Path(own.name)
    started = _Server(folder)
    atexit.register(started.close)
    return started


# --- the server's own side ----------------------------------------------------------------------------------------


def _serve(listening: socket.socket) -> None:
    """Fork a process for each request, and write the exit codes of those that have ended."""
    for name in _MODULES:
        importlib.import_module(name)
    # The product is imported by the server alone, not by the tests that start it.
    from tests.loading import loading_once  # noqa: PLC0415
    from whatwhere.indexer.backbones.backbone import choose_device  # noqa: PLC0415
    from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE  # noqa: PLC0415
    from whatwhere.service.search import searcher  # noqa: PLC0415

    sys.modules["__main__"].__package__ = ""  # by which the usage would name this module
    running = selectors.DefaultSelector()
    running.register(listening, selectors.EVENT_READ)
    users: set[socket.socket] = set()
    with loading_once():
        searcher.load_backbone(DEFAULT_BACKBONE, choose_device())
        _warm_up()
        gc.freeze()
        while True:
            for key, _ in running.select():
                if key.fileobj is listening:
                    user, _ = listening.accept()
                    users.add(user)
                    running.register(user, selectors.EVENT_READ)
                elif key.fileobj not in users:
                    running.unregister(key.fileobj)
                    _tell_end(key.fd, *key.data)
                elif not _fork(key.fileobj, [listening, *users], running):
                    running.unregister(key.fileobj)
                    users.remove(key.fileobj)
                    key.fileobj.close()
                    if not users and _ended(listening):
                        return


def _ended(listening: socket.socket) -> bool:
    """Stop listening, unless somebody has connected meanwhile; return whether it has."""
    address = Path(listening.getsockname())
    with contextlib.suppress(FileNotFoundError), address.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if select.select([listening], [], [], 0)[0]:
            return False
        address.unlink()
    return True  # also where the folder is gone, with the run of the tests


def _warm_up() -> None:
    """Upgrade and verify a collection: what SQLAlchemy and Alembic make once a process is made once for all."""
    from whatwhere.indexer.catalog.catalog import Catalog  # noqa: PLC0415
    from whatwhere.indexer.collection.layout import Layout  # noqa: PLC0415
    from whatwhere.indexer.maintenance.verify import verify_collection  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        root = shutil.copytree(ROOT / "tests/fixtures/first_release/collection.ww", Path(folder) / "c.ww")
        with Catalog.create(Layout(root).catalog):
            pass
        verify_collection(root)


def _fork(requests: socket.socket, others: Iterable[socket.socket], running: selectors.BaseSelector) -> bool:
    """Fork the next command; return whether there was one."""
    content, streams, _, _ = socket.recv_fds(requests, _LONGEST_REQUEST, 3)
    if not content:
        return False
    process = os.fork()
    if process == 0:
        for other in others:
            other.close()
        _be_the_command(json.loads(content), streams[:2])
    for stream in streams[:2]:
        os.close(stream)
    running.register(os.pidfd_open(process), selectors.EVENT_READ, (process, streams[2]))
    requests.send(str(process).encode())
    return True


def _tell_end(pidfd: int, process: int, stream: int) -> None:
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(stream, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(stream)
    os.close(pidfd)


def _be_the_command(request: dict[str, Any], streams: list[int]) -> None:
    """Run the command as a process of its own would, and end."""
    code = 1
    try:
        for standard, stream in zip((1, 2), streams, strict=True):
            os.dup2(stream, standard)
            os.close(stream)
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells start their background jobs without it
        sys.argv = ["whatwhere", *request["arguments"]]
        exec(request["before"], {"__name__": "__main__"})
        from whatwhere.service.cli import main  # noqa: PLC0415 - imported before the fork

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


if __name__ == "__main__":
    if os.fork() > 0:
        os._exit(0)
    os.setsid()  # Ctrl-C is for the tests, with whose end it ends
    _serve(socket.socket(fileno=int(sys.argv[1])))
