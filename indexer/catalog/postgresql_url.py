"""Parse the URL of a catalog in PostgreSQL: arguments for the driver, and a name without secrets for messages."""

import difflib
import os
import re
import socket
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from whatwhere.indexer.errors import InvalidRequest

_DEFAULT_SCHEMA = "whatwhere"  # not public: other programs may have a table images there
_NUMBERS = ("port", "connect_timeout")
_READING_TIMEOUT_S = 30  # for a statement of a reader
_EXAMPLE = "give postgresql+psycopg://USER@HOST:5432/DATABASE"
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
# Limits for the network: a server that does not answer is noticed within half a minute.
_PATIENCE = {
    "connect_timeout": 10,  # seconds; keepalives_count is a number, tcp_user_timeout milliseconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}
# The same on the server, which keeps the lock of a lost writer until it notices.
_SERVERS_PATIENCE = {
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


@dataclass(frozen=True)
class PostgresqlUrl:
    """A schema of a database; `shown` and `user` are for messages and contain no password."""

    url: URL
    schema: str
    shown: str
    user: str

    @classmethod
    def of(cls, address: str) -> Self:
        """Parse an address. Raises InvalidRequest, without the address in its message, if it is invalid."""
        try:
            url = make_url(address)
        except (ArgumentError, ValueError):
            raise InvalidRequest(f"the catalog's address is not a URL: {_EXAMPLE}", field="catalog") from None
        if url.drivername not in ("postgresql", "postgresql+psycopg"):
            raise InvalidRequest(f"{url.drivername} is not a supported catalog database: {_EXAMPLE}", field="catalog")
        schema = url.query.get("schema", _DEFAULT_SCHEMA)
        if not isinstance(schema, str) or not _SCHEMA.fullmatch(schema):
            raise InvalidRequest(
                f"{schema!r} is not a valid schema name: use lowercase letters, digits and underscores",
                field="catalog",
            )
        url = url.set(drivername="postgresql+psycopg").difference_update_query(["schema"])
        _check_options(url)
        user = url.username or os.environ.get("PGUSER") or "this account"
        host = url.host or url.query.get("host") or os.environ.get("PGHOST") or "this machine"
        host = host if isinstance(host, str) else ",".join(host)
        name = url.database or os.environ.get("PGDATABASE") or user
        port = f":{url.port}" if url.port else ""
        return cls(url, schema, f"{host}{port}, database {name}, schema {schema}", user)

    def connect_arguments(self, read_only: bool, lock_timeout_s: float) -> dict[str, Any]:
        """Return the arguments for the driver that the URL does not set itself."""
        given = self.url.query
        settings: dict[str, Any] = {"search_path": self.schema, "timezone": "UTC", **_SERVERS_PATIENCE}
        if read_only:
            settings |= {"default_transaction_read_only": "on", "statement_timeout": f"{_READING_TIMEOUT_S}s"}
        else:
            settings["lock_timeout"] = f"{int(lock_timeout_s * 1000)}ms"
        ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
        theirs = given.get("options", "")
        arguments: dict[str, Any] = {name: value for name, value in _PATIENCE.items() if name not in given}
        if "application_name" not in given:
            arguments["application_name"] = f"whatwhere {os.getpid()} on {socket.gethostname()}"[:63]
        return arguments | {"options": f"{ours} {theirs}".strip(), "client_encoding": "utf8"}


def _check_options(url: URL) -> None:
    """Raise InvalidRequest if the driver would not take an option of the URL. Without a driver, nothing is checked."""
    try:
        from psycopg.pq import Conninfo  # noqa: PLC0415 - an extra; its absence is named by what connects
    except ImportError:
        return
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    for name, value in url.normalized_query.items():
        if name not in known:
            like = difflib.get_close_matches(name, sorted(known | {"schema"}), 1)
            remedy = f"did you mean {like[0]}?" if like else "see PostgreSQL's list of connection parameters"
            raise InvalidRequest(
                f"the catalog's address has the option {name!r}, which is none: {remedy}", field="catalog"
            )
        if name in _NUMBERS and not all(number.isdigit() for text in value for number in text.split(",")):
            raise InvalidRequest(f"the catalog's address has {name}={value[0]}: give a number", field="catalog")
