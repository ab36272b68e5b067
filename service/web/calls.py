"""Calls of the gRPC server in this very process: the head goes at once, the message when it has been received."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc

from whatwhere.indexer.errors import WhatwhereError
from whatwhere.service.api.gateway import Gateway

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True)
class Sender:
    """Who asks over HTTP: `message` raises a WhatwhereError for what is none, `gone` raises when it has gone."""

    message: Callable[[], Awaitable[bytes]]
    gone: Callable[[], Awaitable[None]]


class Caller:
    """A private channel. For the event loop that it is made in."""

    def __init__(self, address: str, gateway: Gateway) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._gateway = gateway

    async def call(self, method: str, metadata: Sequence[tuple[str, str | bytes]], sender: Sender) -> bytes:
        """Return the answer's bytes; raises grpc.aio.AioRpcError, and what `sender.gone` raises.

        The server judges the head before the message is there: who may not ask is answered before it has sent it all.
        """
        # As a stream of one message, which the server knows no difference of: its head is sent before its message.
        call: Any = self._channel.stream_unary(method)(metadata=metadata)
        sending = asyncio.create_task(self._send(call, sender))
        try:
            response: bytes = await call
        except asyncio.CancelledError:
            if sending.done():
                sending.result()  # what it raised has ended the call
            raise
        else:
            return response
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, call: Any, sender: Sender) -> None:
        refusal = b""
        try:
            try:
                message = await sender.message()
            except WhatwhereError as error:  # the server answers with it, logs and counts it
                message = refusal = self._gateway.refuse(error)
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it has ended: its status says why
                await call.write(message)
                await call.done_writing()
            del message
            await sender.gone()
        finally:
            self._gateway.take(refusal)
            call.cancel()

    async def close(self) -> None:
        """End it."""
        await self._channel.close()
