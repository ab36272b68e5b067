"""Believe the reverse proxies that are trusted: who their client is, and under which name it called."""

import ipaddress
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.security.connections import Network, plain_address

UNIX_CLIENT = "unix"  # the peer on a Unix socket, which has no address


class TrustedProxies:
    """Hold the addresses and networks of proxies whose X-Forwarded-For, -Proto and -Host headers are believed.

    Raises InvalidRequest if one is neither an IP address, nor a network, nor `unix` (all peers on Unix sockets).
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._listed = [_normalized(each.strip()) for text in trusted for each in text.split(",") if each.strip()]
        self._hosts: Any = ProxyHeadersMiddleware(_unused, self._listed).trusted_hosts

    @property
    def networks(self) -> list[Network]:
        """Return the networks of the proxies that have addresses."""
        return [ipaddress.ip_network(listed) for listed in self._listed if listed != UNIX_CLIENT]

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return an application that calls `app` with `client` and `scheme` of the scope as the proxies say."""
        return ProxyHeadersMiddleware(app, self._listed)  # type: ignore[arg-type, return-value] # the same protocol

    def trust(self, host: str | None) -> bool:
        """Return whether the peer is a trusted proxy."""
        return host in self._hosts

    def client_of(self, peer: str, forwarded_for: str) -> str | None:
        """Return the name of a gRPC peer's client by x-forwarded-for; None if the peer is not a trusted proxy."""
        if not forwarded_for or not self.trust(_host_of(peer)):
            return None
        return client_name(self._hosts.get_trusted_client_address(forwarded_for)[0])

    def hosts(self, scope: Scope, headers: Headers) -> list[str]:
        """Return the host names of a request; the second and later ones are those that a trusted proxy adds."""
        found = headers.getlist("host")
        if self.trust(scope["state"]["peer"]):
            forwarded = headers.getlist("x-forwarded-host")
            found += [name.strip() for value in forwarded for name in value.split(",")]
        return found


def client_name(host: str) -> str | None:
    """Return the name of a client for limits and logs, as gRPC writes addresses; None if this is no IP address."""
    try:
        address = plain_address(host)
    except ValueError:
        return None
    return f"address:ipv4:{address}" if address.version == 4 else f"address:ipv6:%5B{address}%5D"


def _host_of(peer: str) -> str:
    """Return the address in gRPC's name of a peer: ipv4:10.0.0.1:1234, ipv6:%5B::1%5D:1234, unix:."""
    if peer.startswith("unix"):
        return UNIX_CLIENT
    host = peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "")
    try:
        return str(plain_address(host))
    except ValueError:
        return host


def _normalized(text: str) -> str:
    if text == UNIX_CLIENT:
        return text
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise _invalid(text, f"{error}") from None
    if network.prefixlen == 0:
        raise _invalid(text, "it would let every client choose its own address")
    return str(network) if "/" in text else str(network.network_address)


def _invalid(text: str, reason: str) -> InvalidRequest:
    if text == "*":
        reason = "it would let every client choose its own address"
    return InvalidRequest(
        f"{text!r} is not a proxy to trust ({reason}): give its IP address (10.0.0.5), its network (10.0.0.0/24), or "
        "`unix` for Unix sockets",
        field="trusted_proxies",
    )


async def _unused(*_: object) -> None:
    """Stand in for an application."""
