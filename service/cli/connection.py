"""Define the connection options that several commands share, and create the client."""

import dataclasses
import functools
import inspect
import os
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whatwhere.indexer.errors import CredentialsUnreadable
from whatwhere.indexer.storage.bounded import KIB, read_bounded
from whatwhere.service.cli.options import COLLECTION_VARIABLE, Device
from whatwhere.service.client.defaults import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from whatwhere.service.client.client import Client
    from whatwhere.service.local.search import Answering

TOKEN_VARIABLE = "WHATWHERE_TOKEN"  # noqa: S105 - the name of the variable
SERVER_VARIABLE = "WHATWHERE_SERVER"
_MAX_TOKEN_BYTES = 64 * KIB

_INSTEAD = f"Ask this server, or several in turn. Default without --collection: {SERVER_VARIABLE}."

_Command = Callable[..., None]


@dataclasses.dataclass(frozen=True)
class Connection:
    """Hold the connection options of a command; `server` is None if it was not given."""

    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT[,...]",
            envvar=SERVER_VARIABLE,
            help="Address of the server, or several, comma-separated; dns:///HOST:PORT for all addresses of a name.",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"File with the bearer token to send; without it, the environment variable {TOKEN_VARIABLE}.",
        ),
    ] = None
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS and trust the system's CAs.")] = False
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="Use TLS and trust these CAs (PEM).")] = None
    server_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name in the servers' certificates, if it is not the address.")
    ] = None
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Client certificate (PEM) for mutual TLS, with --tls-key.")
    ] = None
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Key of the client certificate (PEM).")] = None
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86400, metavar="SECONDS", help="Timeout of a request, retries included.")
    ] = DEFAULT_TIMEOUT_S
    allow_insecure: Annotated[
        bool, typer.Option("--allow-insecure", help="Send the token in plain text, even to another machine.")
    ] = False

    def or_variables(self, collection: str | None) -> "tuple[Connection, str | None]":
        """Return this connection and the collection; if neither is given, those of the environment's variables.

        Of both variables the server's counts.
        """
        if self.server is not None or collection is not None:
            return self, collection
        server = os.environ.get(SERVER_VARIABLE) or None
        collection = None if server else os.environ.get(COLLECTION_VARIABLE) or None
        return dataclasses.replace(self, server=server), collection

    def open(self) -> "Client":
        """Return a client of the servers.

        Raises CredentialsUnreadable if a file is unreadable or invalid, InvalidRequest if the address or token is.
        """
        from whatwhere.service.client.client import Client

        if self.server is None:
            raise typer.BadParameter(f"give --server HOST:PORT, or set {SERVER_VARIABLE}")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise typer.BadParameter("--tls-certificate and --tls-key must be given together")
        credentials = None
        if self.tls or self.ca is not None or self.tls_certificate is not None:
            from whatwhere.service.security.tls import channel_credentials

            credentials = channel_credentials(self.ca, self.tls_certificate, self.tls_key)
        token = (os.environ.get(TOKEN_VARIABLE) or "").strip() or None  # secrets in files end with a newline
        if self.token_file is not None:
            token = _read_token(self.token_file)
        return Client(
            self.server,
            timeout_s=self.timeout,
            token=token,
            credentials=credentials,
            allow_insecure=self.allow_insecure,
            server_name=self.server_name,
        )


@contextmanager
def answering(
    connection: Connection, collection: str | None, *, weights: Path | None = None, device: Device = Device.AUTO
) -> "Iterator[Answering]":
    """Connect to the server or open the collection, whichever of the two is given.

    Raises BadParameter unless it is exactly one, the errors of `Connection.open` and those of opening a collection.
    """
    if (connection.server is None) == (collection is None):
        raise typer.BadParameter(
            "give either --server HOST:PORT or --collection DIR, or set one of the variables "
            f"{SERVER_VARIABLE} and {COLLECTION_VARIABLE}"
        )
    if collection is None:
        if weights is not None:
            raise typer.BadParameter("--weights goes with --collection: a server has its own")
        if device is not Device.AUTO:
            raise typer.BadParameter("--device goes with --collection: a server has its own")
        with connection.open() as client:
            yield client
        return
    if dataclasses.replace(connection, timeout=DEFAULT_TIMEOUT_S) != Connection():
        raise typer.BadParameter("tokens, TLS and --allow-insecure need --server, not --collection")
    from whatwhere.service.local.collection import open_local

    with open_local(collection, device=device.value, weights=weights) as opened:
        yield opened


def with_connection(*, timeout_s: float = DEFAULT_TIMEOUT_S, required: bool = True) -> Callable[[_Command], _Command]:
    """Replace a command's parameter `connection` with the connection options.

    Without `required`, the server is optional: see Connection.instead_of.
    """
    hints = typing.get_type_hints(Connection, include_extras=True)
    defaults = dataclasses.asdict(Connection(timeout=timeout_s))
    if required:
        defaults["server"] = inspect.Parameter.empty
        hints["server"] = Annotated[str, *hints["server"].__metadata__]
    else:  # Typer would apply the variable even with --collection: see or_variables
        hints["server"] = Annotated[str | None, typer.Option(metavar="HOST:PORT[,...]", help=_INSTEAD)]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
        for name, default in defaults.items()
    ]

    def extend(command: _Command) -> _Command:
        signature = inspect.signature(command, eval_str=True)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in signature.parameters.items()
            if name != "connection"
        ]

        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            connection = Connection(**{option.name: values.pop(option.name) for option in options})
            command(connection=connection, **values)

        # Typer reads these: the command's own parameters, then those of the connection.
        with_options.__signature__ = signature.replace(parameters=own + options)  # type: ignore[attr-defined]
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in own + options}
        return with_options

    return extend


def _read_token(path: Path) -> str:
    try:
        token = read_bounded(path, _MAX_TOKEN_BYTES).decode(errors="replace").strip()
    except OSError as error:
        raise CredentialsUnreadable(
            f"{path}: {error.strerror}; give a file with a token, or set {TOKEN_VARIABLE}"
        ) from error
    if not token:
        raise CredentialsUnreadable(f"{path} is empty; give a file with a token")
    return token
