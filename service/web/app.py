"""Build the web application: routes, limits of request bodies, responses."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from importlib import resources
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from whatwhere.indexer.errors import ImageTooManyBytes
from whatwhere.service.api.gateway import Gateway
from whatwhere.service.api.interceptor import HEALTH, REQUEST_ID
from whatwhere.service.settings import Limits
from whatwhere.service.web.calls import Caller, Sender
from whatwhere.service.web.files import INDEX, PageFile, matches, page_files
from whatwhere.service.web.guard import HEALTH_PATH
from whatwhere.service.web.statuses import Refusal, failed
from whatwhere.service.web.transcoding import METHODS, HttpMethod, from_json, from_parameters, to_json, to_picture

_OTHER_FIELDS_BYTES = 64 * 1024  # JSON around the image
_PASSED_ON = ("authorization", "traceparent", "tracestate")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_PICTURES_FOR_S = 300
_COMPRESSION = 4  # of 9: large responses are images in base64, which shrink by a quarter at any level
_CHECK = f"{HEALTH}Check"
_GONE = Response(status_code=499)  # the client has disconnected
_NOT_JSON = Refusal(
    415, grpc.StatusCode.INVALID_ARGUMENT, "NOT_JSON", "send the request as JSON, with content-type: application/json"
)
_NO_ROUTE = Refusal(404, grpc.StatusCode.UNIMPLEMENTED, "NO_SUCH_PATH", "no such path")
_NO_VERB = Refusal(
    405,
    grpc.StatusCode.UNIMPLEMENTED,
    "METHOD_NOT_ALLOWED",
    "method not allowed: the header allow lists those that are",
)


def create_app(caller: Caller, gateway: Gateway, limits: Limits, threads: ThreadPoolExecutor) -> Starlette:
    """Return the application without its guard; `threads` parse and write JSON."""
    api, page = (
        _Api(caller, gateway, limits, threads),
        _Page(page_files(resources.files("whatwhere.service.web") / "page")),
    )
    app = Starlette(
        routes=[
            Route("/", page.index),
            Route("/page/{name}", page.file),
            Route(HEALTH_PATH, partial(_health, caller, gateway)),
            *(Route(method.path, partial(api.answer, method), methods=[method.verb]) for method in METHODS),
        ],
        middleware=[Middleware(GZipMiddleware, compresslevel=_COMPRESSION)],
        exception_handlers={HTTPException: _not_found, ClientDisconnect: _gone, Exception: _broken},
    )
    app.router.redirect_slashes = False
    return app


class _Page:
    def __init__(self, files: Mapping[str, PageFile]) -> None:
        self._files = files

    async def index(self, request: Request) -> Response:
        return self._answer(request, INDEX)

    async def file(self, request: Request) -> Response:
        return self._answer(request, request.path_params["name"])

    def _answer(self, request: Request, name: str) -> Response:
        found = self._files.get(name)
        return _NO_ROUTE.answer(request.state.request_id) if found is None else found.answer(request)


class _Api:
    def __init__(self, caller: Caller, gateway: Gateway, limits: Limits, threads: ThreadPoolExecutor) -> None:
        self._caller = caller
        self._gateway = gateway
        self._threads = threads
        self._max_message_bytes = limits.image.max_bytes + limits.message_overhead_bytes
        self._max_body_bytes = self._max_message_bytes * 4 // 3 + _OTHER_FIELDS_BYTES

    async def answer(self, method: HttpMethod, request: Request) -> Response:
        """Call the gRPC method and return its response."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # CSRF: another site's page can send this type only after a CORS preflight request, which always fails.
        if method.verb == "POST" and media_type != "application/json":
            return _NOT_JSON.answer(request.state.request_id)
        sender = Sender(partial(self._message, method, request), partial(_until_gone, request))
        try:
            response = await self._caller.call(method.full_name, self._metadata(request), sender)
        except grpc.aio.AioRpcError as failure:
            return failed(failure, request.state.request_id)
        if method.name == "GetImageContent":
            return await self._picture(request, response)
        content = await self._in_thread(to_json, method, response)
        return Response(content, media_type="application/json", headers={"cache-control": "no-store"})

    async def _picture(self, request: Request, response: bytes) -> Response:
        content, media_type = to_picture(response)
        etag = f'"{(await self._in_thread(sha256, content)).hexdigest()[:32]}"'
        headers = {"etag": etag, "cache-control": f"private, max-age={_PICTURES_FOR_S}", "vary": "authorization"}
        if matches(request, etag):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    def _metadata(self, request: Request) -> list[tuple[str, str | bytes]]:
        metadata: list[tuple[str, str | bytes]] = [
            self._gateway.named(request.state.client),
            (REQUEST_ID, request.state.request_id),
        ]
        for name in _PASSED_ON:
            value = request.headers.get(name)
            if value is not None and _PRINTABLE.fullmatch(value):
                metadata.append((name, value))
        return metadata

    async def _message(self, method: HttpMethod, request: Request) -> bytes:
        """Receive the request as a protobuf message. Raises InvalidRequest or ImageTooManyBytes if it is invalid."""
        if method.verb == "GET":
            return from_parameters(method, request.path_params.get("id"), request.query_params.multi_items())
        message: bytes = await self._in_thread(from_json, method, await self._body(request))
        if len(message) > self._max_message_bytes:
            raise self._too_large()
        return message

    async def _body(self, request: Request) -> bytearray:
        if int(request.headers.get("content-length", "0")) > self._max_body_bytes:
            raise self._too_large()
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body_bytes:
                raise self._too_large()
        return body

    def _too_large(self) -> ImageTooManyBytes:
        return ImageTooManyBytes(
            f"the request exceeds the limit of {self._max_body_bytes:,} bytes: send a smaller image",
            field="image_content",
        )

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


async def _health(caller: Caller, gateway: Gateway, request: Request) -> Response:
    """Answer as the gRPC health service does: 200 if it is SERVING, else 503, also while draining."""
    service = request.query_params.get("service", "")
    metadata: list[tuple[str, str | bytes]] = [gateway.named(request.state.client)]
    sender = Sender(_message_of(health_pb2.HealthCheckRequest(service=service)), partial(_until_gone, request))
    try:
        content = await caller.call(_CHECK, metadata, sender)
    except grpc.aio.AioRpcError as failure:
        if failure.code() is grpc.StatusCode.NOT_FOUND:
            return Refusal(404, failure.code(), "NO_SUCH_SERVICE", failure.details() or "").answer(
                request.state.request_id
            )
        return failed(failure, request.state.request_id)
    status = health_pb2.HealthCheckResponse.FromString(content).status
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    code = 200 if status == health_pb2.HealthCheckResponse.SERVING else 503
    return JSONResponse({"status": name}, code, {"cache-control": "no-store"})


def _message_of(message: Message) -> Callable[[], Awaitable[bytes]]:
    async def read() -> bytes:
        return message.SerializeToString()

    return read


async def _until_gone(request: Request) -> NoReturn:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # raised by the router only
    refusal = _NO_VERB if error.status_code == 405 else _NO_ROUTE
    return refusal.answer(request.state.request_id, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return _GONE


async def _broken(request: Request, error: Exception) -> Response:
    return failed(error, request.state.request_id)
