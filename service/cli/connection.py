"""The options of a connection to a server, and the connection that they make."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whatwhere.indexer.errors import CredentialsUnreadable

if TYPE_CHECKING:
    from whatwhere.service.client.client import Client

TOKEN_VARIABLE = "WHATWHERE_TOKEN"  # noqa: S105 - the name of the variable

SERVER_VARIABLE = "WHATWHERE_SERVER"

Server = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT[,...]",
        envvar=SERVER_VARIABLE,
        help="The server's address, several parted by commas, or dns:///HOST:PORT for all that a name stands for.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"Show the server the token in this file, or else the one in the variable {TOKEN_VARIABLE}.",
    ),
]
Tls = Annotated[bool, typer.Option("--tls", help="Connect by TLS; trust the authorities that are trusted by default.")]
Authority = Annotated[Path | None, typer.Option(metavar="FILE", help="Connect by TLS; trust these authorities (PEM).")]
Certificate = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Show the server this certificate (PEM), with --tls-key.")
]
ServerName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The name that the servers' certificates are for, in place of the address."),
]
Key = Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate's key (PEM).")]
Timeout = Annotated[
    float, typer.Option(min=0.1, max=86400, metavar="SECONDS", help="The longest to wait, retries included.")
]
AllowInsecure = Annotated[
    bool, typer.Option("--allow-insecure", help="Send the token in plain text, even to another machine.")
]


def connect(
    server: str,
    *,
    token_file: Path | None,
    tls: bool,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    timeout_s: float,
    allow_insecure: bool,
    server_name: str | None = None,
) -> "Client":
    """Return a client of the servers; raises CredentialsUnreadable for files that are none, InvalidRequest."""
    from whatwhere.service.client.client import Client

    if (certificate is None) != (key is None):
        raise typer.BadParameter("--tls-certificate and --tls-key go together")
    credentials = None
    if tls or ca is not None or certificate is not None:
        from whatwhere.service.security.tls import channel_credentials

        credentials = channel_credentials(ca, certificate, key)
    token = os.environ.get(TOKEN_VARIABLE) or None if token_file is None else _read_token(token_file)
    return Client(
        server,
        timeout_s=timeout_s,
        token=token,
        credentials=credentials,
        allow_insecure=allow_insecure,
        server_name=server_name,
    )


def _read_token(path: Path) -> str:
    try:
        token = path.read_bytes().decode(errors="replace").strip()
    except OSError as error:
        raise CredentialsUnreadable(f"{path}: {error.strerror}; give a file that holds a token") from error
    if not token:
        raise CredentialsUnreadable(f"{path} is empty; give a file that holds a token")
    return token
