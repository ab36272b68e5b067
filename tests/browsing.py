"""Run real servers for tests of the web side, and call them with well-behaved and hostile clients."""

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import QUERY_PHOTOGRAPH
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.service.server import Server
from whatwhere.service.settings import Batching, Limits, ServerSettings

LOOPBACK = "127.0.0.1:0"
JSON = {"content-type": "application/json"}
PATIENCE_S = 30.0
UPLOAD = {"imageContent": base64.b64encode(QUERY_PHOTOGRAPH.read_bytes()).decode()}


@contextmanager
def running(wanted: ServerSettings) -> Iterator[Server]:
    """Run a server in this process."""
    server = Server(wanted)
    try:
        server.start()
        server.open()
        yield server
    finally:
        server.stop(grace=None)


def plain(collection: Path, **changes: Any) -> ServerSettings:
    """Return settings of a server without TLS or tokens."""
    settings = ServerSettings(collection, listen=LOOPBACK, web_listen=LOOPBACK, metrics_listen=LOOPBACK, threads=1)
    return replace(settings, **changes)


def port_of(server: Server) -> int:
    return int(server.addresses["web"].rpartition(":")[2])


@contextmanager
def browsing(server: Server, source: str = "127.0.0.1", **headers: str) -> Iterator[httpx.Client]:
    """Yield an HTTP client that calls from the source address."""
    transport = httpx.HTTPTransport(local_address=source)
    address = f"http://127.0.0.1:{port_of(server)}"
    with httpx.Client(base_url=address, transport=transport, timeout=PATIENCE_S, headers=headers) as client:
        yield client


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    """Yield a raw TCP connection."""
    with socket.create_connection(("127.0.0.1", port_of(server)), PATIENCE_S) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """Return all data until the server closes the connection."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Return the status and the body of the response."""
    response = HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def head(verb: str, path: str, **headers: str) -> bytes:
    lines = [f"{verb} {path} HTTP/1.1", "Host: localhost", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def error(response: httpx.Response) -> tuple[int, str, str]:
    """Return the HTTP status, the code name and the reason of an error; check that its parts agree."""
    found = response.json()["error"]
    info = next(detail for detail in found["details"] if detail["@type"].endswith("/google.rpc.ErrorInfo"))
    assert found["code"] == response.status_code
    assert info["domain"] == "whatwhere"
    assert info["metadata"]["request_id"] == response.headers["x-request-id"]
    return response.status_code, found["status"], info["reason"]


def field(response: httpx.Response) -> str | None:
    """Return the invalid field, None if the error names none."""
    found = [detail for detail in response.json()["error"]["details"] if detail["@type"].endswith(".BadRequest")]
    return found[0]["fieldViolations"][0]["field"] if found else None


def crowded(collection: Path, **changes: Any) -> ServerSettings:
    """Return settings of a server whose upload pool has two threads (one and a batch of one)."""
    return plain(collection, batching=Batching(1), **changes)


def strict(collection: Path) -> ServerSettings:
    """Return settings of a server with small limits and one more host name."""
    limits = Limits(image=ImageLimits(max_bytes=1024 * 1024), receive_s=1.0)
    return plain(collection, limits=limits, web_hosts=("find.example",))
