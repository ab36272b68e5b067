"""The address of a Milvus server or cluster, with its settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from whatwhere.indexer.errors import InvalidRequest

# index type → how it is built; searched as `search_parameters` says
INDEXES: Mapping[str, Mapping[str, int]] = {
    "AUTOINDEX": {},
    "FLAT": {},
    "HNSW": {"M": 32, "efConstruction": 200},
    "IVF_FLAT": {"nlist": 1024},
    "IVF_SQ8": {"nlist": 1024},
    "DISKANN": {},
}
CONSISTENCIES = ("Strong", "Bounded", "Session", "Eventually")
_SCHEMES = {"milvus+http": "http", "milvus+https": "https"}
_EXAMPLE = "milvus+http://HOST:19530?database=default&index=HNSW&consistency=Bounded&replicas=1&timeout=5"
_HNSW_BREADTH, _LISTS_PROBED = 128, 64


@dataclass(frozen=True)
class MilvusAddress:
    """A Milvus server: `uri` for its client, and settings; `timeout_s` is the deadline of each request."""

    uri: str
    database: str = "default"
    index: str = "AUTOINDEX"
    consistency: str = "Bounded"
    replicas: int = 1
    timeout_s: float = 5.0

    @classmethod
    def parse(cls, address: str) -> Self:
        """Parse an address. Raises InvalidRequest if it is invalid."""
        try:
            parts = urlsplit(address)
            named = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            port = parts.port or 19530
        except ValueError as error:
            raise _refused(f"{address!r} is not a valid address ({error})") from error
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.path.strip("/") or parts.fragment:
            raise _refused(f"{address!r} is not the address of a Milvus server")
        if parts.username is not None or parts.password is not None:
            raise _refused(
                "the address contains a user, which would be stored in plain text: set MILVUS_TOKEN=USER:PASSWORD"
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(f"{_SCHEMES[parts.scheme]}://{host}:{port}", **_settings(named))

    def search_parameters(self, count: int) -> dict[str, int]:
        """Return the parameters of a search for `count` vectors."""
        if self.index == "HNSW":
            return {"ef": max(_HNSW_BREADTH, count)}
        if self.index.startswith("IVF"):
            return {"nprobe": _LISTS_PROBED}
        return {"search_list": max(_HNSW_BREADTH, count)} if self.index == "DISKANN" else {}


def _settings(named: list[tuple[str, str]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in named:
        if name in values or name not in _READ:
            known = ", ".join(_READ)
            raise _refused(f"{name} is given twice" if name in values else f"{name!r} is not a setting: use {known}")
        values[name] = _READ[name](name, text)
    if "timeout" in values:
        values["timeout_s"] = values.pop("timeout")
    return values


def _name(name: str, text: str) -> str:
    if not text.replace("_", "a").isalnum() or not text.isascii() or text[0].isdigit():
        raise _refused(f"{name} {text!r} is not a name of letters, digits and _")
    return text


def _index(name: str, text: str) -> str:
    if text not in INDEXES:
        raise _refused(f"{name} {text!r} is not one of {', '.join(INDEXES)}")
    return text


def _consistency(name: str, text: str) -> str:
    if text not in CONSISTENCIES:
        raise _refused(f"{name} {text!r} is not one of {', '.join(CONSISTENCIES)}")
    return text


def _replicas(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise _refused(f"{name} {text!r} is not a number from 1 to 100")
    return int(text)


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 600:
        raise _refused(f"{name} {text!r} is not a number of seconds up to 600")
    return seconds


_READ: Mapping[str, Any] = {
    "database": _name,
    "index": _index,
    "consistency": _consistency,
    "replicas": _replicas,
    "timeout": _seconds,
}


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"vectors: {why}: give {_EXAMPLE}", field="vectors")
