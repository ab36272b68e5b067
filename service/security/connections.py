"""Limit connections before authentication: in all, and per client address, on all ports of a server.

gRPC's own limit (`grpc.max_allowed_incoming_connections`) is one per port and knows no clients; the sockets that it has
accepted are out of Python's reach, except as file descriptors of this process. So the guard looks through these and
shuts down sockets over a limit, which their owner sees as a client that disconnects. A connection's bytes pass through
no Python code. A front in this process that accepts, counts and passes on would need the interpreter for each packet,
three descriptors per connection, and hide the client's address from gRPC.
"""

import ipaddress
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

_DESCRIPTORS = "/proc/self/fd"
_INTERVAL_S = 0.05
_LEAST_REST = 20  # of a look at the descriptors: at most a twentieth of a core
_QUIET_S = 60.0
_RESERVED = (
    128  # descriptors for all that is no connection: 22 at rest, files of a new generation, a store's connections
)
_AT_ACCEPT = 1.25  # gRPC itself refuses beyond this multiple of the limit, between two looks
_IPV6_CLIENT = 64  # bits of an address that a client cannot choose freely

log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def raise_descriptor_limit() -> None:
    """Raise this process's limit of open files to the most that it may have itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # a sandbox forbids it, or a Mac's "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def room_for(connections: int) -> int:
    """Return the number of connections that the limit of open files leaves room for, at most this many.

    A warning is logged if it is lower.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return connections
    room = max(1, int((files - min(_RESERVED, files // 2)) / _AT_ACCEPT))
    if room < connections:
        log.warning(
            "fewer connections than --max-connections: the limit of open files (ulimit -n, LimitNOFILE) is too low",
            extra={"open_files": files, "connections": room},
        )
    return min(room, connections)


def limit_at_accept(connections: int) -> int:
    """Return the limit per port for gRPC itself: a little above the guard's, which counts and logs what it closes."""
    return int(connections * _AT_ACCEPT)


@dataclass(frozen=True)
class ConnectionLimits:
    """Maximum number of connections in all, and per client address; `exempt` networks count in all only."""

    in_all: int
    per_client: int
    exempt: Sequence[Network] = ()


@dataclass(frozen=True)
class _Connection:
    """An accepted connection: its descriptor, the number that the kernel gave its socket, and its client."""

    descriptor: int
    inode: int
    client: str
    exempt: bool
    order: int  # in which connections were first seen


class ConnectionGuard:
    """Shuts down connections to `ports` that are over the limits, 20 times a second, in a thread until it is closed.

    Over the limit in all, the client with the most connections loses its newest. Clients are IPv4 addresses and /64
    networks of IPv6. It needs /proc: elsewhere it does nothing.
    """

    def __init__(
        self, ports: Collection[int], limits: ConnectionLimits, on_refused: Callable[[str], None] = lambda _: None
    ) -> None:
        self._on_refused = on_refused
        self._ports = frozenset(ports)
        self._limits = limits
        self._lock = threading.Lock()
        self._known: dict[int, _Connection | None] = {}  # by inode; None: another socket
        self._seen = 0
        self._shut: set[int] = set()
        self._reports = {reason: _Report(reason) for reason in ("client", "total")}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="connections", daemon=True)

    def start(self) -> None:
        """Start to watch."""
        if os.path.isdir(_DESCRIPTORS):
            self._thread.start()

    def close(self) -> None:
        """Stop to watch."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def count(self) -> int:
        """Return the number of open connections; from any thread."""
        if not os.path.isdir(_DESCRIPTORS):
            return 0
        with self._lock:
            return len(self._connections(os.listdir(_DESCRIPTORS)))

    def enforce(self) -> None:
        """Shut down the connections that are over the limits now."""
        with self._lock:
            descriptors = os.listdir(_DESCRIPTORS)
            if len(descriptors) > min(self._limits.per_client, self._limits.in_all):  # else none can be over a limit
                self._shut_down(self._connections(descriptors))
            for report in self._reports.values():
                report.log_if_due()

    def _watch(self) -> None:
        rest_s = _INTERVAL_S
        while not self._closing.wait(rest_s):
            started = time.monotonic()
            try:
                self.enforce()
            except OSError as error:  # no descriptor is free for listing them
                log.error("connections cannot be counted: %s", error)  # noqa: TRY400 - it says all
                rest_s = _QUIET_S
                continue
            rest_s = max(_INTERVAL_S, _LEAST_REST * (time.monotonic() - started))

    def _shut_down(self, connections: Sequence[_Connection]) -> None:
        limits = self._limits
        by_client: dict[str, list[_Connection]] = {}
        for connection in connections:  # oldest first
            by_client.setdefault(connection.client, []).append(connection)
        for owned in by_client.values():
            while len(owned) > limits.per_client and not owned[0].exempt:
                self._refuse(owned.pop(), "client", limits.per_client)
        for _ in range(sum(map(len, by_client.values())) - limits.in_all):
            self._refuse(max(by_client.values(), key=len).pop(), "total", limits.in_all)

    def _refuse(self, connection: _Connection, reason: str, limit: int) -> None:
        self._shut.add(connection.inode)
        with suppress(OSError):  # it has been closed meanwhile
            if _inode(connection.descriptor) == connection.inode:
                _shutdown(connection.descriptor)
                self._on_refused(reason)
                self._reports[reason].add(connection.client, limit)

    def _connections(self, descriptors: Sequence[str]) -> list[_Connection]:
        """Return the connections among this process's descriptors, oldest first."""
        known: dict[int, _Connection | None] = {}
        for descriptor in map(int, descriptors):
            try:
                inode = _inode(descriptor)
                if inode is not None:
                    known[inode] = self._known[inode] if inode in self._known else self._look_at(descriptor, inode)
            except OSError:
                continue
        self._known = known
        self._shut &= known.keys()
        connections = [found for inode, found in known.items() if found is not None and inode not in self._shut]
        return sorted(connections, key=lambda connection: connection.order)

    def _look_at(self, descriptor: int, inode: int) -> _Connection | None:
        """Return the connection, None for a socket that is no connection to one of the ports."""
        found = socket.socket(fileno=descriptor)
        try:
            if found.family not in (socket.AF_INET, socket.AF_INET6) or found.getsockname()[1] not in self._ports:
                return None
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            host = found.getpeername()[0]
        finally:
            found.detach()
        self._seen += 1
        exempt = any(plain_address(host) in network for network in self._limits.exempt)
        return _Connection(descriptor, inode, client_of(host), exempt, self._seen)


class _Report:
    """Logs refused connections of one kind, at most once a minute."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._count = 0
        self._fields: dict[str, str | int] = {}
        self._logged: float | None = None

    def add(self, client: str, limit: int) -> None:
        self._count += 1
        self._fields = {"client": f"address:{client}", "limit": limit}

    def log_if_due(self) -> None:
        now = time.monotonic()
        if self._count and (self._logged is None or now - self._logged >= _QUIET_S):
            fields = {**self._fields, "reason": self._reason, "refused": self._count}
            log.warning("connections over the limit closed", extra=fields)
            self._count, self._logged = 0, now


def client_of(host: str) -> str:
    """Return the client that an IP address belongs to, as the limits count it."""
    address = plain_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return f"ipv4:{address}"
    return f"ipv6:{ipaddress.ip_network((address, _IPV6_CLIENT), strict=False)}"


def plain_address(host: str) -> Address:
    """Return an IP address without its zone; one of IPv4 that a dual-stack socket shows as IPv6 as what it is.

    Raises ValueError for other texts.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _inode(descriptor: int) -> int | None:
    """Return the number of a descriptor's socket, None if it is no socket."""
    target = os.readlink(f"{_DESCRIPTORS}/{descriptor}")
    return int(target[8:-1]) if target.startswith("socket:[") else None


def _shutdown(descriptor: int) -> None:
    owned_elsewhere = socket.socket(fileno=descriptor)
    try:
        owned_elsewhere.shutdown(socket.SHUT_RDWR)
    finally:
        owned_elsewhere.detach()
