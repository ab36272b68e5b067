"""One connection of the web address: how long it may take to say what, who is at its other end."""

import asyncio
import ipaddress
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
from whatwhere.service.web.guard import HEADERS
from whatwhere.service.web.statuses import Refusal

_ERROR_FIRST_S = 1.0  # the server's own error for a slow body comes before its connection is cut
_LEAST_READ_BYTES = 64 * 1024  # between two looks
_NOT_HTTP = Refusal(
    400, grpc.StatusCode.INVALID_ARGUMENT, "NOT_HTTP", "this is not HTTP/1.1, or has more headers than are read"
)


@dataclass(frozen=True)
class Shared:
    """What the connections of a server have in common."""

    door: ConcurrencyLimiter
    receive_s: float


class Connection(H11Protocol):
    """Uvicorn's, with a door, and an end to waiting for a request's bytes and for who does not read the answer."""

    def __init__(self, config: uvicorn.Config, state: ServerState, shared: Shared) -> None:
        super().__init__(config, state, {})
        self._shared = shared
        self._inside = ExitStack()
        self._awaited: Any = None  # which part of a request is being waited for
        self._cut: asyncio.TimerHandle | None = None
        self._unread = 0  # bytes, when it was last looked at
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin, unless there are too many."""
        super().connection_made(transport)
        client = _client(transport)
        try:
            self._inside.enter_context(self._shared.door.entered(client))
        except TryAgainLater:
            transport.abort()
            return
        self.app_state = {"client": client}
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        self._stop_looking()
        self._inside.close()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Take in what has come; also when the next request was there before the answer to this one."""
        super().handle_events()
        self._watch()

    def shutdown(self) -> None:
        """End when the request in flight is answered."""
        if not self.transport.is_closing():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; nothing is said where an answer has begun."""
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
        """Watch that what has been written is read."""
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        """Go on: it has been read."""
        super().resume_writing()
        self._stop_looking()

    def timeout_keep_alive_handler(self) -> None:
        """End what is idle, and not what reads a long answer."""
        if self._reading is not None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self.transport.get_write_buffer_size():
            self.transport.abort()  # to close is to wait until it has been read
        else:
            super().timeout_keep_alive_handler()

    def _look_later(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        """Cut off who has read next to nothing since."""
        if self._unread - self.transport.get_write_buffer_size() < _LEAST_READ_BYTES:
            self.transport.abort()
        else:
            self._look_later()

    def _stop_looking(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _watch(self) -> None:
        """Give each part of a request, its head and its body, the time that it may take to arrive."""
        state = self.conn.their_state
        if self.timeout_keep_alive_task is not None and state is h11.IDLE:
            self._stop_waiting()  # between two requests
        elif state not in (h11.IDLE, h11.SEND_BODY) or self.transport.is_closing():
            self._stop_waiting()
        elif self._awaited is not state:
            self._stop_waiting()
            slack_s = _ERROR_FIRST_S if state is h11.SEND_BODY else 0
            self._awaited = state
            self._cut = self.loop.call_later(self._shared.receive_s + slack_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        self._awaited = None
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


def _client(transport: asyncio.Transport) -> str:
    """Name who is at the other end, as the gRPC server would: they are the same to its limits."""
    certificate: Mapping[str, Any] | None = transport.get_extra_info("peercert")
    if certificate:
        names = [value for part in certificate["subject"] for key, value in part if key == "commonName"]
        names += [value for _, value in certificate.get("subjectAltName", ())]
        return f"certificate:{names[0] if names else ''}"
    name = transport.get_extra_info("peername") or ("0.0.0.0", 0)  # noqa: S104 - it has gone again
    address = ipaddress.ip_address(name[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return f"address:ipv4:{address}"
    return f"address:ipv4:{address.ipv4_mapped}" if address.ipv4_mapped else f"address:ipv6:%5B{address}%5D"
