"""Call the gRPC server in the same process: metadata is sent at once, the message when it is received."""

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
    """Hold an HTTP caller: `message` raises a WhatwhereError if invalid, `gone` raises if the caller disconnects."""

    message: Callable[[], Awaitable[bytes]]
    gone: Callable[[], Awaitable[None]]


class Caller:
    """Call the gRPC server through a private channel. Use it only in the event loop that created it."""

    def __init__(self, address: str, gateway: Gateway) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._gateway = gateway

    async def call(self, method: str, metadata: Sequence[tuple[str, str | bytes]], sender: Sender) -> bytes:
        """Call a method and return the bytes of its response.

        The server checks the metadata before the message arrives, so an unauthorized caller is refused before its
        upload ends. Raises grpc.aio.AioRpcError if the call fails, and the error of `sender.gone`.
        """
        # A stream of one message, which is the same to the server: metadata is sent before the message.
        call: Any = self._channel.stream_unary(method)(metadata=metadata)
        sending = asyncio.create_task(self._send(call, sender))
        try:
            response: bytes = await call
        except asyncio.CancelledError:
            if sending.done():
                sending.result()  # its error has ended the call
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
            except WhatwhereError as error:  # the server returns it, logs it and counts it
                message = refusal = self._gateway.refuse(error)
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the call has ended: see its status
                await call.write(message)
                await call.done_writing()
            del message
            await sender.gone()
        finally:
            self._gateway.take(refusal)
            call.cancel()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
