"""Wrap every request: authentication, admission, deadline, error status, log line, metrics and trace."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from whatwhere.indexer import errors
from whatwhere.service.api.admission import ConcurrencyLimiter
from whatwhere.service.api.gateway import CLIENT, Gateway
from whatwhere.service.api.status import CALLER_ERRORS, code_of, to_status
from whatwhere.service.observability.metrics import Metrics
from whatwhere.service.observability.tracing import Tracer
from whatwhere.service.request_context import RequestContext, current_request
from whatwhere.service.security.tokens import Scope, TokenFile
from whatwhere.service.settings import Limits

REQUEST_ID = "x-request-id"
FORWARDED_FOR = "x-forwarded-for"
HEALTH = "/grpc.health.v1.Health/"
_OURS = "/whatwhere."
_ADMIN = "/whatwhere.v1.AdminService/"
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_BEARER = "bearer "
_CANCELLED_WITHIN_S = 0.2
_HANGS_UP_WITHIN_S = 0.1  # a caller's deadline begins earlier than ours: it disconnects slightly before our deadline

log = logging.getLogger(__name__)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Message]"  # it reads bytes, or grpc.aio.EOF
# A method of health or reflection: it yields its responses, or writes them itself.
_Behavior: TypeAlias = Callable[[object, _Context], AsyncIterator[Message] | Awaitable[None]]


@dataclass
class RequestInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the unary methods of whatwhere's services.

    Streams of health and reflection are only limited in number; reflection also requires a token.
    """

    limits: Limits
    metrics: Metrics
    tokens: TokenFile | None = None
    tracer: Tracer | None = None
    gateway: Gateway = field(default_factory=Gateway)
    # Returns the client that a trusted proxy names, by the peer and x-forwarded-for; None for other peers.
    forwarded: Callable[[str, str], str | None] = lambda _, __: None
    limiter: ConcurrencyLimiter = field(init=False)
    watchers: ConcurrencyLimiter = field(init=False)

    def __post_init__(self) -> None:
        """Create the limiters."""
        self.limiter = ConcurrencyLimiter(self.limits.max_concurrent, self.limits.max_concurrent_per_client)
        self.watchers = ConcurrencyLimiter(self.limits.max_watchers, self.limits.max_watchers_per_client)
        self._watching: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def end_watchers(self) -> None:
        """End all streams of health and reflection: they have no end of their own, and a stopping server would wait."""
        self._stopping = True
        for task in self._watching:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Return the wrapped handler of a method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        call = _Call(handler_call_details.method, handler_call_details.invocation_metadata or ())
        if call.method.startswith(_OURS):
            # As a stream of one message: the head is checked before the body is received, which has a time limit.
            method = _Method(handler.request_deserializer, handler.unary_unary)  # type: ignore[arg-type] # see _Method
            return grpc.stream_unary_rpc_method_handler(
                partial(self._handle, call, method), response_serializer=handler.response_serializer
            )
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                partial(self._watch, call, handler.stream_stream),  # type: ignore[arg-type] # see _Method
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                partial(self._watch, call, handler.unary_stream),  # type: ignore[arg-type] # see _Method
                handler.request_deserializer,
                handler.response_serializer,
            )
        return handler

    async def _handle(self, call: "_Call", method: "_Method", _: AsyncIterator[bytes], context: _Context) -> Message:
        ended = _Ended(call, self._request_context(context))
        try:
            self._authenticate(call, context)
            with self.limiter.entered(call.client):
                response = await self._answer(method, ended.request_context, context)
            await context.send_initial_metadata(((REQUEST_ID, call.request_id),))
            return response  # noqa: TRY300 - the line before may raise the errors caught below
        except asyncio.CancelledError:  # the caller has disconnected, or its deadline has passed
            ended.request_context.cancel()
            ended.error = _gone(ended.request_context)
            raise
        except TimeoutError:
            ended.request_context.cancel()
            ended.error = errors.DeadlineExceeded(
                f"the request took longer than the limit of {self.limits.request_s:g} s: request less"
            )
        except Exception as error:  # becomes a status, below
            ended.error = error
        finally:
            self._note(ended)
        assert ended.error is not None
        _forget_frames(ended.error)
        return await _abort(context, ended.error, call.request_id)

    async def _answer(self, method: "_Method", request_context: RequestContext, context: _Context) -> Message:
        """Receive and answer the request. Its upload stays in this frame: gRPC keeps the outer frame after an abort."""
        request = await self._receive(method, request_context, context)
        current_request.set(request_context)
        async with asyncio.timeout(self.limits.request_s):
            return await method.answer(request, context)

    async def _watch(self, call: "_Call", behavior: _Behavior, request: object, context: _Context) -> None:
        """Admit a stream of health or reflection."""
        call.client = self._client(call, context)
        try:
            if not call.method.startswith(HEALTH):  # probes have no token
                self._authenticate(call, context)
            with self.watchers.entered(call.client), self._ended_by_stopping():
                stream = behavior(request, context)
                if isinstance(stream, AsyncIterator):
                    async for response in stream:
                        await context.write(response)
                else:
                    await stream
        except errors.WhatwhereError as error:
            await _abort(context, error, call.request_id)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    @contextmanager
    def _ended_by_stopping(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._watching.add(task)
        try:
            yield
        finally:
            self._watching.discard(task)

    def _request_context(self, context: _Context) -> RequestContext:
        remaining_s = context.time_remaining()
        longest_s = self.limits.request_s + self.limits.receive_s
        return RequestContext(time.monotonic() + (longest_s if remaining_s is None else min(remaining_s, longest_s)))

    def _authenticate(self, call: "_Call", context: _Context) -> None:
        """Identify the caller. Raises CallMetadataTooLarge, Unauthenticated or ScopeMissing."""
        call.client = self._client(call, context)
        size = sum(len(key) + len(value) for key, value in call.metadata)
        if size > self.limits.max_metadata_bytes:
            raise errors.CallMetadataTooLarge(
                f"the call metadata has {size:,} bytes, the limit is {self.limits.max_metadata_bytes:,}: send less"
            )
        if self.tokens is None:
            return
        secret = call.text("authorization")
        if not secret[: len(_BEARER)].lower() == _BEARER:
            raise errors.Unauthenticated("a token is required: send the metadata authorization: Bearer TOKEN")
        token = self.tokens.identify(secret[len(_BEARER) :].strip())
        if token is None:
            raise errors.Unauthenticated(
                "the token is unknown, revoked or expired: request a new one from the server's operator"
            )
        call.client = f"token:{token.name}"
        needed = Scope.ADMIN if call.method.startswith(_ADMIN) else Scope.SEARCH
        if call.method.startswith(_OURS) and needed not in token.scopes:
            raise errors.ScopeMissing(f"the token {token.name} lacks the scope {needed}, which this method requires")

    def _client(self, call: "_Call", context: _Context) -> str:
        if (client := self.gateway.client(call.binary(CLIENT))) is not None:
            return client
        return self.forwarded(context.peer(), call.forwarded_for) or _peer(context)

    async def _receive(self, method: "_Method", request_context: RequestContext, context: _Context) -> Message:
        try:
            with request_context.stage("receive"):
                async with asyncio.timeout(self.limits.receive_s):
                    body = await context.read()  # the iterator would keep a reference to it
            if body is grpc.aio.EOF:
                # gRPC may have refused the message as too large; it then cancels this call within a moment.
                await asyncio.sleep(_CANCELLED_WITHIN_S)
                raise errors.InvalidRequest("the call ended without a request message")
            if (refused := self.gateway.take(body)) is not None:
                raise refused
            return method.read(body)
        except TimeoutError:
            raise errors.RequestTooSlow(
                f"the request did not arrive within {self.limits.receive_s:g} s: send a smaller image or a stored name"
            ) from None
        except DecodeError as error:
            raise errors.InvalidRequest("the request is not a message of this method: check the proto") from error

    def _note(self, ended: "_Ended") -> None:
        """Log, count and trace the request."""
        call, stages, error = ended.call, ended.request_context.stages, ended.error
        seconds = (time.monotonic_ns() - call.started_ns) / 1e9
        status = grpc.StatusCode.OK if error is None else code_of(error)
        code = status.name
        if error is not None and not isinstance(error, CALLER_ERRORS):
            log.error("request failed", exc_info=error, extra={"request_id": call.request_id})
        fields = {"method": call.name, "code": code, "client": call.client, "request_id": call.request_id}
        if isinstance(error, errors.WhatwhereError):
            fields["reason"] = error.reason
        times = {f"{name}_ms": round(spent * 1000, 1) for name, spent in ended.spent().items()}
        log.info("request", extra={**fields, "ms": round(seconds * 1000, 1), **times})
        if isinstance(error, errors.ServerOverloaded):
            self.metrics.shed(call.name, code, error.reason)
        else:
            self.metrics.request(call.name, code, seconds, stages)
        if self.tracer is not None:
            attributes: dict[str, str | int] = {
                "rpc.method": call.name,
                "rpc.grpc.status_code": status.value[0],
                "request_id": call.request_id,
            }
            self.tracer.request(call.name, call.started_ns, stages, attributes, call.texts())


@dataclass(frozen=True)
class _Method:
    """A method of ours, as grpc.aio calls it: gRPC's stubs know the methods of synchronous servers alone."""

    read: Callable[[bytes], Message]
    answer: Callable[[Message, _Context], Awaitable[Message]]


@dataclass
class _Call:
    """Method, metadata and caller of a request."""

    method: str
    metadata: Sequence[tuple[str, str | bytes]]
    client: str = ""
    request_id: str = ""
    started_ns: int = field(default_factory=time.monotonic_ns)

    def __post_init__(self) -> None:
        """Choose the request id."""
        self.request_id = choose_request_id(self.text(REQUEST_ID))

    @property
    def name(self) -> str:
        """Name of the method without its service."""
        return self.method.rpartition("/")[2]

    def text(self, key: str) -> str:
        """Return the first text value of a key, "" if absent."""
        return next((value for found, value in self.metadata if found == key and isinstance(value, str)), "")

    def binary(self, key: str) -> bytes:
        """Return the first binary value of a key, b"" if absent."""
        return next((value for found, value in self.metadata if found == key and isinstance(value, bytes)), b"")

    @property
    def forwarded_for(self) -> str:
        """All values of x-forwarded-for, in order."""
        return ", ".join(v for key, v in self.metadata if key == FORWARDED_FOR and isinstance(v, str))

    def texts(self) -> Mapping[str, str]:
        """Return all text values."""
        return {key: value for key, value in self.metadata if isinstance(value, str)}


@dataclass
class _Ended:
    """A request at its end: call, context and error."""

    call: _Call
    request_context: RequestContext
    error: Exception | None = None

    def spent(self) -> Mapping[str, float]:
        """Return the seconds spent in each stage."""
        sums: dict[str, float] = {}
        for stage in self.request_context.stages:
            sums[stage.name] = sums.get(stage.name, 0.0) + stage.seconds
        return sums


def choose_request_id(given: str) -> str:
    """Return the caller's request id if it is valid, else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


async def _abort(context: _Context, error: Exception, request_id: str) -> NoReturn:
    status = rpc_status.to_status(to_status(error, request_id))
    # Trailing, not initial metadata: a client that has received a head does not retry, not even on UNAVAILABLE.
    trailing = (*status.trailing_metadata, (REQUEST_ID, request_id))
    if isinstance(error, errors.ServerNotReady) and error.retry_delay_s is not None:
        # gRPC clients wait this long instead of their own backoff, which would give up before the server is open.
        trailing = (*trailing, ("grpc-retry-pushback-ms", str(round(1000 * error.retry_delay_s))))
    await context.abort(status.code, status.details, trailing)
    raise AssertionError("abort raises")


def _forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of an error: their frames form reference cycles with futures.

    Otherwise a searcher would outlive its generation until the next full garbage collection, which an idle server never
    runs.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # some libraries raise an error from itself
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _gone(request_context: RequestContext) -> errors.WhatwhereError:
    if request_context.remaining_s < _HANGS_UP_WITHIN_S:
        return errors.DeadlineExceeded("the caller's deadline has passed")
    return errors.RequestCancelled("the caller has disconnected")


def _peer(context: _Context) -> str:
    """Return the name of the client certificate, else the address without its port."""
    names = context.auth_context().get("x509_common_name") or context.auth_context().get(
        "x509_subject_alternative_name"
    )
    if names:
        return f"certificate:{next(iter(names)).decode(errors='replace')}"
    return f"address:{context.peer().rpartition(':')[0]}"
