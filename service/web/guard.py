"""Guard every request: check the host and the origin, and set security headers on every response."""

import re
from collections.abc import Callable, Collection, Sequence
from email.utils import formatdate
from urllib.parse import unquote

import grpc
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whatwhere.indexer.errors import CallMetadataTooLarge, InvalidRequest
from whatwhere.service.addresses import to_address, unix_path
from whatwhere.service.api.interceptor import REQUEST_ID, choose_request_id
from whatwhere.service.web.forwarding import TrustedProxies, client_name
from whatwhere.service.web.host_names import read_host_names, without_port
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
CROSS_SITE = Refusal(
    403, grpc.StatusCode.PERMISSION_DENIED, "CROSS_SITE", "requests from other sites' pages are not allowed"
)
HEALTH_PATH = "/health"  # asked by load balancers, which name the server as they like
_LONGEST_SHOWN = 100
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")


class Hosts:
    """Hold the server's host names: the configured ones, its address and those of its certificate.

    This protects against DNS rebinding, where another site's host name resolves to this server. Raises InvalidRequest
    if a configured name is none.
    """

    def __init__(self, listen: str, configured: Sequence[str], certified: Callable[[], Collection[str]]) -> None:
        address = "localhost" if unix_path(listen) is not None else without_port(listen)  # proxies call it so
        self._any_address = _is_wildcard(address)
        self._names = {address}
        self._configured = read_host_names(tuple(configured))
        if self._any_address or address in _LOOPBACK or _is_address(address, loopback=True):
            self._names |= set(_LOOPBACK)
        self._certified = certified

    def know(self, host: str) -> bool:
        """Return whether a Host header, with or without a port, names this server."""
        name = without_port(host)
        if name in self._names:
            return True
        if self._any_address and _is_address(name):  # an IP address cannot be rebound
            return True
        return any(_covers(pattern.lower(), name) for pattern in (*self._configured, *self._certified()))


class Guard:
    """Wrap the application: reject invalid requests, add headers to responses."""

    def __init__(
        self, app: ASGIApp, hosts: Hosts, max_head_bytes: int, proxies: TrustedProxies, prefix: str = ""
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._max_head_bytes = max_head_bytes
        self._proxies = proxies
        self._prefix = prefix  # of paths, if a proxy passes it on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        headers = Headers(scope=scope)
        request_id = scope["state"]["request_id"] = choose_request_id(headers.get(REQUEST_ID, ""))
        hosts = self._proxies.hosts(scope, headers)
        if (target_host := _from_absolute_form(scope)) is not None:
            hosts.append(target_host)
        self._name_client(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                added.update({**HEADERS, REQUEST_ID: request_id, "date": formatdate(usegmt=True)})
            await send(message)

        beside = self._prefix and scope["path"] == self._prefix
        _remove_prefix(scope, self._prefix)
        refusal = self._refusal(scope, headers, hosts, request_id)
        answer = refusal or (RedirectResponse(f"{self._prefix}/", 308) if beside else self._app)
        await answer(scope, receive, send_with_headers)

    def _name_client(self, scope: Scope) -> None:
        """Name the client for limits and logs as the trusted proxies say."""
        peer = scope["state"]["peer"]
        client = scope.get("client")
        if client is not None and client[0] != peer and self._proxies.trust(peer):
            scope["state"]["client"] = client_name(client[0]) or scope["state"]["client"]

    def _refusal(self, scope: Scope, headers: Headers, hosts: Sequence[str], request_id: str) -> Response | None:
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
        if scope["path"] == HEALTH_PATH:
            return None
        unknown = [host for host in hosts if not self._hosts.know(host)]
        if unknown or len(headers.getlist("host")) != 1:
            return _wrong_host(unknown).answer(request_id)
        if scope["path"].startswith("/v1/") and headers.get("sec-fetch-site", "").lower() not in _OUR_SITE:
            return CROSS_SITE.answer(request_id)
        return None


def read_prefix(path: str) -> str:
    """Return a path prefix without its last slash. Raises InvalidRequest if it is no path."""
    if path and not _PREFIX.fullmatch(path):
        raise InvalidRequest(
            f"{path!r} is not a path prefix: give it as in the page's address, such as /photos", field="web_path"
        )
    return path.rstrip("/")


def _wrong_host(unknown: Sequence[str]) -> Refusal:
    shown = f"{unknown[0][:_LONGEST_SHOWN]!r} does" if unknown else "No or several Host headers do"
    return Refusal(
        421,
        grpc.StatusCode.INVALID_ARGUMENT,
        "WRONG_HOST",
        f"{shown} not name this server: to allow the name, start the server with --web-host NAME",
    )


def _from_absolute_form(scope: Scope) -> str | None:
    """Make the target `http://host/path` a path, and return its host; None for other targets (RFC 9112, 3.2.2)."""
    scheme, found, rest = scope["raw_path"].decode("ascii").partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        return None
    host, _, path = rest.partition("/")
    scope["raw_path"] = f"/{path}".encode()
    scope["path"] = unquote(f"/{path}")
    return str(host)


def _remove_prefix(scope: Scope, prefix: str) -> None:
    """Remove the prefix from the path, unless the proxy has done so. uvicorn's root_path is for the latter alone."""
    if prefix and scope["path"].startswith(f"{prefix}/"):
        scope["path"] = scope["path"].removeprefix(prefix)


def _is_address(name: str, *, loopback: bool = False) -> bool:
    address = to_address(name)
    return address is not None and (address.is_loopback or not loopback)


def _is_wildcard(name: str) -> bool:
    address = to_address(name)
    return address is not None and address.is_unspecified


def _covers(pattern: str, name: str) -> bool:
    """Return whether a certificate's name matches; a star matches one label."""
    if pattern.startswith("*."):
        return "." in name and name.partition(".")[2] == pattern[2:]
    return name == pattern
