"""How servers and connections end: at once while starting, without those who only watch, and at their age."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests import commands
from tests.waiting import wait_until
from whatwhere.service.client.client import Client
from whatwhere.service.server import Server, create_server
from whatwhere.service.settings import ServerSettings

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.takes(10)]

LOOPBACK = "127.0.0.1:0"
# The first import of the script gives a signal time to arrive. Some shells start their background jobs without Ctrl-C.
SLOW_IMPORT = """
import signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)
class Slow:
    def find_spec(self, name, path, target=None):
        if name == "whatwhere.service.cli":
            print("importing", flush=True)
            import time; time.sleep(30)
sys.meta_path.insert(0, Slow())
from whatwhere.service.entry import main
main()
"""
SIGNALED_WHILE_OPENING = """
import os, signal, time
from whatwhere.service import server
def opening(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
server.open_live = opening
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_while_it_is_imported(number: int) -> None:
    """At once, without a traceback, by the exit code of the signal."""
    command = [sys.executable, "-c", SLOW_IMPORT, "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        _, messages = process.communicate(timeout=20)

    assert (process.returncode, messages) == (128 + number, "")


@pytest.mark.skipif(os.geteuid() != 0 or not sys.platform.startswith("linux"), reason="needs root on Linux")
def test_process_1_ends_by_sigterm_while_it_is_imported() -> None:
    """Of a container: the kernel's default for it is to ignore the signal."""
    code = (
        "import ctypes, subprocess, sys; assert ctypes.CDLL(None).unshare(0x20000000) == 0\n"
        "sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1], '--help']).returncode)"
    )
    script = "import os; print(os.getpid())\n" + SLOW_IMPORT
    with subprocess.Popen([sys.executable, "-c", code, script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline().strip()
        process.stdout.readline()
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        returned = process.wait(20)

    assert (first, returned) == ("1", 128 + signal.SIGTERM)


def test_a_signal_ends_a_server_that_opens_its_collection(collection: Path) -> None:
    """It does not wait for the collection to be open, and leaves no folder of the page's behind."""
    with commands.start(
        "serve", "--collection", collection, "--listen", LOOPBACK, before=SIGNALED_WHILE_OPENING
    ) as process:
        out, messages = process.communicate(timeout=20)

    assert (process.wait(), out) == (0, "")
    assert "event=stopped" in messages


@pytest.fixture
def opened(collection: Path) -> Iterator[Server]:
    server, _ = create_server(ServerSettings(collection, listen=LOOPBACK, threads=1, max_connection_age_s=0.5))
    server.start()
    yield server
    server.stop(None)


def test_who_watches_does_not_hold_up_the_end(opened: Server) -> None:
    """A stream of health is told NOT_SERVING and ends with the server, not with its grace."""
    with grpc.insecure_channel(opened.addresses["listen"]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        started = time.monotonic()
        opened.stop(grace=30)
        took_s = time.monotonic() - started
        with pytest.raises(grpc.RpcError) as ended:
            list(watching)

    assert took_s < 15
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE


def test_connections_end_at_their_age_and_requests_do_not(opened: Server) -> None:
    """A client connects again, to new servers too; none of its calls fails."""
    seen: set[int] = set()

    def again(client: Client) -> bool:
        client.image("images/1")
        opened._guard.count()
        seen.update(inode for inode, found in opened._guard._known.items() if found is not None)
        return len(seen) >= 3

    with Client(opened.addresses["listen"], timeout_s=30) as client:
        wait_until(lambda: again(client))

    assert len(seen) >= 3
