"""Guard every request: check the host and the origin, and set security headers on every response."""

import ipaddress
from collections.abc import Callable, Collection
from email.utils import formatdate

import grpc
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whatwhere.indexer.errors import CallMetadataTooLarge
from whatwhere.service.api.interceptor import REQUEST_ID, choose_request_id
from whatwhere.service.web.statuses import Refusal

_OUR_SITE = ("same-origin", "none", "")  # none: typed address; empty: not a browser, or an old one
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
WRONG_HOST = Refusal(
    421,
    grpc.StatusCode.INVALID_ARGUMENT,
    "WRONG_HOST",
    "the Host header does not name this server: to allow the name, start the server with --web-host NAME",
)
CROSS_SITE = Refusal(
    403, grpc.StatusCode.PERMISSION_DENIED, "CROSS_SITE", "requests from other sites' pages are not allowed"
)


class Hosts:
    """Hold the server's host names: the configured ones, its address and those of its certificate.

    This protects against DNS rebinding, where another site's host name resolves to this server.
    """

    def __init__(self, listen: str, configured: Collection[str], certified: Callable[[], Collection[str]]) -> None:
        address = listen.rpartition(":")[0].lower()
        self._any_address = _is_wildcard(address)
        self._names = {address, *map(str.lower, configured)}
        if self._any_address or address in _LOOPBACK or _is_address(address, loopback=True):
            self._names |= set(_LOOPBACK)
        self._certified = certified

    def know(self, host: str) -> bool:
        """Return whether a Host header, with or without a port, names this server."""
        name = _without_port(host).lower().removesuffix(".")
        if name in self._names:
            return True
        if self._any_address and _is_address(name):  # an IP address cannot be rebound
            return True
        return any(_covers(pattern.lower(), name) for pattern in self._certified())


class Guard:
    """Wrap the application: reject invalid requests, add headers to responses."""

    def __init__(self, app: ASGIApp, hosts: Hosts, max_head_bytes: int) -> None:
        self._app = app
        self._hosts = hosts
        self._max_head_bytes = max_head_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        headers = Headers(scope=scope)
        request_id = scope["state"]["request_id"] = choose_request_id(headers.get(REQUEST_ID, ""))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                added.update({**HEADERS, REQUEST_ID: request_id, "date": formatdate(usegmt=True)})
            await send(message)

        answer = self._refusal(scope, headers, request_id) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers, request_id: str) -> Response | None:
        # The parser's limit covers only heads that arrive in pieces.
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in headers.raw)
        if size > self._max_head_bytes:
            return Refusal(
                431,
                grpc.StatusCode.INVALID_ARGUMENT,
                CallMetadataTooLarge.reason,
                f"path and headers have {size:,} bytes, the limit is {self._max_head_bytes:,}: send less",
            ).answer(request_id)
        if [self._hosts.know(host) for host in headers.getlist("host")] != [True]:
            return WRONG_HOST.answer(request_id)
        if scope["path"].startswith("/v1/") and headers.get("sec-fetch-site", "").lower() not in _OUR_SITE:
            return CROSS_SITE.answer(request_id)
        return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def _is_address(name: str, *, loopback: bool = False) -> bool:
    address = _address(name)
    return address is not None and (address.is_loopback or not loopback)


def _is_wildcard(name: str) -> bool:
    address = _address(name)
    return address is not None and address.is_unspecified


def _covers(pattern: str, name: str) -> bool:
    """Return whether a certificate's name matches; a star matches one label."""
    if pattern.startswith("*."):
        return "." in name and name.partition(".")[2] == pattern[2:]
    return name == pattern
