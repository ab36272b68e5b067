"""Check the addresses that a server listens on, and say why one cannot be used."""

import errno
import ipaddress
import os
import re
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

from whatwhere.indexer.errors import InvalidRequest

UNIX = "unix:"
_LONGEST_PATH = 103  # bytes of a Unix socket's path: 107 on Linux, 103 on a Mac
_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\[\]]+\]|[^\[\]:/@\s]+):(?P<port>\d{1,5})", re.ASCII)
_REASONS = {
    errno.EADDRINUSE: "it is in use by another process: stop that one, or give another port (0 takes a free one)",
    errno.EADDRNOTAVAIL: "it is not an address of this machine: 0.0.0.0 and [::] are all of them",
    errno.EACCES: "this user may not: ports below 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EAFNOSUPPORT: "this machine has no such protocol: give an IPv4 address",
    errno.ENOENT: "its folder does not exist",
}


def check_listen(address: str, field: str, *, unix: bool = True) -> None:
    """Raise InvalidRequest, with an address that would do, unless this is HOST:PORT or, with `unix`, unix:PATH."""
    path = unix_path(address) if unix else None
    if path is not None:
        if not path.startswith("/") or len(path.encode()) > _LONGEST_PATH:
            raise InvalidRequest(
                f"{address!r}: give an absolute path of at most {_LONGEST_PATH} bytes, as in unix:/run/search.sock",
                field=field,
            )
        return
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None or int(found["port"]) > 65535 or (found["host"][0] == "[" and not _is_ipv6(found["host"])):
        raise InvalidRequest(
            f"{address!r} is not HOST:PORT with a port from 0 to 65535: {_remedy(address)}", field=field
        )


def unix_path(address: str) -> str | None:
    """Return the path of a Unix socket, None for HOST:PORT."""
    return address.removeprefix(UNIX) if address.startswith(UNIX) else None


def to_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a name is, with or without brackets; None for other names."""
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def is_local(address: str) -> bool:
    """Return whether only this machine can reach the address."""
    if unix_path(address) is not None:
        return True
    host = address.rpartition(":")[0]
    found = to_address(host)
    return host == "localhost" if found is None else found.is_loopback


def bind(address: str, backlog: int) -> socket.socket:
    """Return a listening socket. Raises OSError."""
    path = unix_path(address)
    if path is not None:
        return _bind_unix(path, backlog)
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    both = family is socket.AF_INET6 and place[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(place[:2], family=family, backlog=backlog, dualstack_ipv6=both)


def check_free(address: str, field: str) -> None:
    """Raise InvalidRequest if a process listens on this Unix socket: gRPC would take it over from that process."""
    path = unix_path(address)
    if path is not None and os.path.exists(path) and not _is_stale(path):
        raise cannot_listen(address, field, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))


def cannot_listen(address: str, field: str, error: OSError | None = None, *, with_tls: bool = False) -> InvalidRequest:
    """Return the error that says why an address cannot be used; without `error`, by trying HOST:PORT."""
    if error is None:
        try:
            bind(address, 1).close()
        except OSError as found:
            error = found
    if error is None:
        reason = "gRPC cannot use the certificate or its key" if with_tls else "it was in use a moment ago: try again"
    elif isinstance(error, socket.gaierror):
        reason = "the name has no address: check it, or give an IP address"
    else:
        reason = _REASONS.get(error.errno or 0) or f"{error.strerror or error}: give a free address of this machine"
    return InvalidRequest(f"cannot listen on {address}: {reason}", field=field)


def _bind_unix(path: str, backlog: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listening.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            Path(path).unlink()  # a process that was killed has left it
            listening.bind(path)
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening


def _is_stale(path: str) -> bool:
    """Return whether this is a socket on which nobody listens."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trying:
        try:
            trying.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _remedy(address: str) -> str:
    if address.isascii() and address.isdigit() and int(address) <= 65535:
        address = f":{address}"
    if re.fullmatch(r":\d+", address):
        return (
            f"give 127.0.0.1{address} for this machine alone, 0.0.0.0{address} or [::]{address} for all that reach it"
        )
    if "://" in address:
        place = urlsplit(address).netloc
        return f"give it without the scheme: {place or 'HOST:PORT'}"
    host, _, port = address.rpartition(":")
    if _is_ipv6(host):
        return f"IPv6 addresses need brackets: [{host}]:{port}"
    if _is_ipv6(address):
        return f"add a port, and brackets around IPv6: [{address.strip('[]')}]:50051"
    if ":" not in address and address:
        return f"add a port: {address}:50051"
    return "such as 127.0.0.1:50051 or [::1]:50051"


def _is_ipv6(host: str) -> bool:
    address = to_address(host)
    return address is not None and address.version == 6
