"""Run Milvus Lite in a separate process that can be killed, stopped and restarted on the same data."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from tests.ports import free_port

_STARTS_WITHIN_S = 60.0


class MilvusLite:
    """Run a server of the data in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def address(self, settings: str = "index=FLAT&consistency=Strong") -> str:
        """Return the address with settings."""
        return f"milvus+http://127.0.0.1:{self._port}?{settings}"

    def start(self) -> None:
        """Start the server and wait until it listens."""
        command = [Path(sys.executable).parent / "milvus-lite", "server", "--host", "127.0.0.1"]
        self._process = subprocess.Popen(
            [*command, "--data-dir", self._folder, "--port", str(self._port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, "the server ended at once"
            with socket.socket() as connecting:
                if connecting.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError("the server does not listen")

    def kill(self) -> None:
        """Kill the server, as if the machine were lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop the process: the server accepts connections but does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the stopped process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
