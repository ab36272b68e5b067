"""A program that forks with an open client."""

import subprocess
import sys

# The second server is a socket that takes the connection and never answers.
_PROGRAM = """
import os, socket, sys, threading
from whatwhere.service.client.client import Client

def in_a_fork(client):
    child = os.fork()
    if child == 0:
        try:
            print(len(client.search("images/1").hits), flush=True)
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
        client.close()
        os._exit(0)
    os.waitpid(child, 0)

client = Client(sys.argv[1], timeout_s=20)
client.search("images/1")
in_a_fork(client)
silent = socket.create_server(("127.0.0.1", 0))
other = Client("127.0.0.1:%d" % silent.getsockname()[1], timeout_s=60)
threading.Thread(target=other.collection, daemon=True).start()
silent.accept()
in_a_fork(client)
print(len(client.search("images/1").hits), flush=True)
os._exit(0)
"""


def test_a_forked_process_searches_unless_a_call_was_in_flight(server: str) -> None:
    """Then it is refused: gRPC would hang in it, past the deadline."""
    command = [sys.executable, "-c", _PROGRAM, server]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    first, second, third = done.stdout.splitlines()
    assert (first, third) == ("8", "8"), done.stderr
    assert second.startswith("InvalidRequest this process was forked while another thread's call was in flight")
