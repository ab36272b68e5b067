"""Handle one HTTP connection: its timeouts, its limit per client, and the client's name."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from whatwhere.indexer.errors import TryAgainLater
from whatwhere.service.api.admission import ConcurrencyLimiter
from whatwhere.service.api.interceptor import choose_request_id
from whatwhere.service.security.connections import plain_address
from whatwhere.service.web.forwarding import UNIX_CLIENT, TrustedProxies, client_name
from whatwhere.service.web.guard import HEADERS
from whatwhere.service.web.statuses import Refusal

_ERROR_FIRST_S = 1.0  # the server's error for a slow body is sent before the connection is closed
_LEAST_READ_BYTES = 64 * 1024  # between two checks
_NOT_HTTP = Refusal(
    400, grpc.StatusCode.INVALID_ARGUMENT, "NOT_HTTP", "the request is not valid HTTP/1.1, or its headers are too large"
)


@dataclass(frozen=True)
class Shared:
    """Hold the limits that all connections of a server share."""

    limiter: ConcurrencyLimiter
    receive_s: float
    proxies: TrustedProxies


class Connection(H11Protocol):
    """Extend uvicorn's connection with a concurrency limit and with timeouts for slow senders and slow readers."""

    def __init__(self, config: uvicorn.Config, state: ServerState, shared: Shared) -> None:
        super().__init__(config, state, {})
        self._shared = shared
        self._inside = ExitStack()
        self._awaited: Any = None  # the part of a request that is awaited
        self._timeout: asyncio.TimerHandle | None = None
        self._unread = 0  # bytes at the last check
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Accept the connection, or close it if there are too many."""
        super().connection_made(transport)
        client, peer = _client(transport), _peer(transport)
        # The connections of a trusted proxy are of many people: only their total is limited.
        limited = f"{client}, connection {id(self)}" if self._shared.proxies.trust(peer) else client
        try:
            self._inside.enter_context(self._shared.limiter.entered(limited))
        except TryAgainLater:
            transport.abort()
            return
        self.client = (peer, self.client[1] if self.client else 0)
        self.app_state = {"client": client, "peer": peer}
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection's resources."""
        self._clear_timeout()
        self._stop_checking()
        self._inside.close()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Process received data, also if the next request arrived before the response to this one."""
        super().handle_events()
        self._watch()

    def shutdown(self) -> None:
        """Close the connection after the request in flight."""
        if not self.transport.is_closing():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Reject invalid HTTP; if a response has begun, close the connection without another."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        answer = _NOT_HTTP.answer(choose_request_id(""), HEADERS | {"connection": "close"})
        head = h11.Response(status_code=answer.status_code, headers=answer.raw_headers)
        parts = (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(part) or b"" for part in parts))
        self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def pause_writing(self) -> None:
        """Start to check that the client reads the response."""
        super().pause_writing()
        self._check_later()

    def resume_writing(self) -> None:
        """Continue: the client has read the response."""
        super().resume_writing()
        self._stop_checking()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, but not one that is reading a long response."""
        if self._reading is not None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self.transport.get_write_buffer_size():
            self.transport.abort()  # a normal close would wait for the client to read
        else:
            super().timeout_keep_alive_handler()

    def _check_later(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.timeout_keep_alive, self._check)

    def _check(self) -> None:
        """Abort the connection if the client has read almost nothing since the last check."""
        if self._unread - self.transport.get_write_buffer_size() < _LEAST_READ_BYTES:
            self.transport.abort()
        else:
            self._check_later()

    def _stop_checking(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _watch(self) -> None:
        """Set the timeout for each part of a request: head and body."""
        state = self.conn.their_state
        if self.timeout_keep_alive_task is not None and state is h11.IDLE:
            self._clear_timeout()  # between two requests
        elif state not in (h11.IDLE, h11.SEND_BODY) or self.transport.is_closing():
            self._clear_timeout()
        elif self._awaited is not state:
            self._clear_timeout()
            slack_s = _ERROR_FIRST_S if state is h11.SEND_BODY else 0
            self._awaited = state
            self._timeout = self.loop.call_later(self._shared.receive_s + slack_s, self.transport.abort)

    def _clear_timeout(self) -> None:
        self._awaited = None
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None


def _client(transport: asyncio.Transport) -> str:
    """Return the client's name as in the gRPC server, so that both share its limits."""
    certificate: Mapping[str, Any] | None = transport.get_extra_info("peercert")
    if certificate:
        names = [value for part in certificate["subject"] for key, value in part if key == "commonName"]
        names += [value for _, value in certificate.get("subjectAltName", ())]
        return f"certificate:{names[0] if names else ''}"
    return client_name(_peer(transport)) or UNIX_CLIENT


def _peer(transport: asyncio.Transport) -> str:
    """Return the IP address of the other side."""
    if (connection := transport.get_extra_info("socket")) is not None and connection.family is socket.AF_UNIX:
        return UNIX_CLIENT
    name = transport.get_extra_info("peername") or ("0.0.0.0", 0)  # noqa: S104 - it has disconnected
    return str(plain_address(name[0]))
