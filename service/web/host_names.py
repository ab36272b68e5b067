"""Normalize host names as people write them, and as browsers send them."""

import ipaddress
import re
from urllib.parse import urlsplit

import idna

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.addresses import to_address

_SEPARATORS = re.compile(r"[,\s]+")
_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LONGEST = 253


def read_host_names(texts: tuple[str, ...]) -> frozenset[str]:
    """Return host names as a Host header has them: lowercase, punycode, IPv6 in brackets, without port and last dot.

    Each text is one or several (separated by commas or spaces) names, IP addresses, NAME:PORT or URLs, of which the
    name counts. `*.example.org` is each name with one more label. Raises InvalidRequest if one is none of these.
    """
    found = [(text, part) for text in texts for part in _SEPARATORS.split(text.strip(", \t\n"))]
    return frozenset(_read(part, text) for text, part in found)


def without_port(host: str) -> str:
    """Return the name of a Host header, normalized; IP addresses in their shortest form."""
    name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    name = name.lower().removesuffix(".")
    address = to_address(name)
    return name if address is None else _written(address)


def _written(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _read(part: str, text: str) -> str:
    if (address := to_address(part)) is not None:
        return _written(address)
    try:
        url = urlsplit(part if "://" in part else f"//{part}")
        host, has_user = url.hostname or "", "@" in url.netloc
        _ = url.port  # raises ValueError
        name = host.removesuffix(".")
        if not name.isascii():
            name = idna.encode(name, uts46=True).decode()
    except (ValueError, idna.IDNAError) as error:
        raise _invalid(text, part, f" ({error})") from None
    if (address := to_address(name)) is not None:
        return _written(address)
    if has_user or len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise _invalid(text, part)
    return name


def _invalid(text: str, part: str, reason: str = "") -> InvalidRequest:
    inside = "" if part == text else f" in {text!r}"
    return InvalidRequest(
        f"{part!r}{inside} is not a host name{reason}: give the name that browsers show, such as photos.example.org, "
        "*.example.org or [2001:db8::1]",
        field="web_hosts",
    )
