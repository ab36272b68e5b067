"""Serve metrics over HTTP, to a limited number of connections.

prometheus_client's own server keeps a thread for each silent connection, without a limit.
"""

import socket
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

_MOST = 16  # connections; Prometheus has one, two of them in a pair have two
_IDLE_S = 10.0
_PATHS = ("/metrics", "/")


def start_http_server(port: int, host: str, registry: CollectorRegistry) -> tuple[WSGIServer, Thread]:
    """Serve the registry's metrics at an address, in a thread. Raises OSError if it cannot be bound."""

    class Server(_Server):
        address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]

    server = make_server(host, port, _application(registry), Server, _Handler)
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    return server, thread


def _application(registry: CollectorRegistry) -> Callable[[Any, Any], Iterable[bytes]]:
    metrics = make_wsgi_app(registry)

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] in _PATHS:
            return metrics(environ, start_response)  # type: ignore[no-any-return]
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"metrics are at /metrics\n"]

    return application


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per connection, and a maximum number of them: more are closed at once."""

    daemon_threads = True
    request_queue_size = 128
    block_on_close = False  # a connection that is open at the end has a timeout

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._free = BoundedSemaphore(_MOST)
        super().__init__(*arguments, **named)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that disconnect."""


class _Handler(WSGIRequestHandler):
    timeout = _IDLE_S

    def log_message(self, format: str, *values: Any) -> None:
        """Log nothing: what is scraped is no event."""
