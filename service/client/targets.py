"""Parse and resolve server addresses: one server, a list, or all addresses of a DNS name."""

import ipaddress
import logging
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from whatwhere.indexer import errors

# Addresses that never leave the machine, in gRPC's notations.
_LOOPBACK_HOST = r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?"
_LOOPBACK = re.compile(rf"unix(-abstract)?:.+|(dns:(///)?|ipv[46]:)?{_LOOPBACK_HOST}")
_SERVER = re.compile(r"(?:\[(?P<literal>[^\[\]]+)\]|(?P<host>[^\[\]:/,\s]+)):(?P<port>\d{1,5})", re.ASCII)
_LITERALS = re.compile(r"ipv[46]:(?P<servers>.+)")
_DNS = re.compile(r"dns:(?://[^/]*/)?(?P<server>.+)")
_OTHER_SCHEME = re.compile(r"(unix|unix-abstract|vsock|xds):.+")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """Hold one server, or several that requests go to in turn."""

    uri: str  # as gRPC writes it
    servers: tuple[str, ...]  # as they were given
    several: bool = False

    @property
    def text(self) -> str:
        """Return the addresses as they were given, comma-separated."""
        return ", ".join(self.servers)

    @property
    def loopback(self) -> bool:
        """Return whether all servers are on this machine."""
        return all(_LOOPBACK.fullmatch(server) for server in self.servers)

    @property
    def host(self) -> str | None:
        """Return the DNS name that all servers share, or None."""
        dns = _DNS.fullmatch(self.uri)
        return None if dns is None else _split(dns["server"])[0]

    @property
    def host_name(self) -> str | None:
        """Return the host of a single server, or None."""
        if self.several and self.host is None:
            return None
        found = _SERVER.fullmatch(self.servers[0])
        return self.host or (None if found is None else found["literal"] or found["host"])

    def look_up(self) -> tuple[str, ...]:
        """Return the address of each server. Raises ServerUnreachable if the name does not resolve."""
        dns = _DNS.fullmatch(self.uri)
        if dns is None:
            return self.servers
        return tuple(_join(*place) for place in _resolve([dns["server"]]))


def to_target(address: str | Sequence[str]) -> Target:
    """Parse HOST:PORT, several of them (a list, or comma-separated), dns:///HOST:PORT, or another gRPC target.

    The names in a list are resolved once, now; names that do not resolve are left out and logged. Raises InvalidRequest
    if an address is invalid, ServerUnreachable if no name in a list resolves.
    """
    texts = [address] if isinstance(address, str) else list(address)
    literals = _LITERALS.fullmatch(texts[0]) if len(texts) == 1 else None
    if literals is not None:
        texts = [literals["servers"]]
    elif len(texts) == 1 and (dns := _DNS.fullmatch(texts[0])) is not None:
        _split(dns["server"])
        return Target(texts[0], (texts[0],), several=True)
    elif len(texts) == 1 and _OTHER_SCHEME.fullmatch(texts[0]) is not None:
        return Target(texts[0], (texts[0],))
    servers = tuple(dict.fromkeys(part.strip() for text in texts for part in text.split(",")))
    for server in servers or ("",):
        _split(server)
    return Target(servers[0], servers) if len(servers) == 1 else Target(_uri(_resolve(servers)), servers, several=True)


def _split(server: str) -> tuple[str, int]:
    """Split HOST:PORT. Raises InvalidRequest if it is invalid."""
    found = _SERVER.fullmatch(server)
    host = "" if found is None else found["literal"] or found["host"]
    numeric = found is not None and (found["literal"] is not None or re.fullmatch(r"[\d.]+", host) is not None)
    version = (6 if found["literal"] else 4) if found is not None and numeric else None
    if found is None or not 0 < int(found["port"]) <= 65535 or _version(host) != version:
        raise errors.InvalidRequest(
            f"{server!r} is not a server address: give HOST:PORT, such as 10.0.0.5:50051, "
            "search.example.org:50051 or, in brackets, [2001:db8::5]:50051",
            field="address",
        )
    return host, int(found["port"])


def _version(host: str) -> int | None:
    """Return 4 or 6 for an address, None for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


def _resolve(servers: Sequence[str]) -> list[tuple[str, int]]:
    """Resolve servers to distinct addresses and ports. Raises ServerUnreachable if none resolves."""
    found: dict[tuple[str, int], None] = {}
    unknown = []
    for server in servers:
        host, port = _split(server)
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            unknown.append(f"{server} ({getattr(error, 'strerror', None) or error})")
            continue
        found |= dict.fromkeys((str(place[0]), port) for *_, place in infos)
    if not found:
        raise errors.ServerUnreachable(f"cannot resolve {', '.join(unknown)}: check the name, or give an IP address")
    if unknown:
        log.warning("cannot resolve %s: the other servers are used", ", ".join(unknown))
    return list(found)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _uri(places: Sequence[tuple[str, int]]) -> str:
    """Return gRPC's URI of a list. A list has one IP version: among IPv6 addresses, IPv4 ones are mapped."""
    if all(":" not in host for host, _ in places):
        return "ipv4:" + ",".join(f"{host}:{port}" for host, port in places)
    mapped = [(host if ":" in host else f"::ffff:{host}", port) for host, port in places]
    return "ipv6:" + ",".join(_join(host.replace("%", "%25"), port) for host, port in mapped)
