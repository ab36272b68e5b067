"""Ports for servers that must be told one, and for addresses where nobody is to listen."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """Return a port that nobody listens on, and that the kernel gives to nobody who asks for any: others run beside."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as listening, suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port
