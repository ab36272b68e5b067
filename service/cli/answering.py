"""Choose what answers a question: a server, or a collection opened in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from whatwhere.service.cli.connection import connect
from whatwhere.service.cli.options import Device
from whatwhere.service.client.defaults import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from whatwhere.service.local.search import Answering


@dataclass(frozen=True)
class Connection:
    """The options of a connection to a server, as `connect` takes them."""

    token_file: Path | None = None
    tls: bool = False
    ca: Path | None = None
    server_name: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    allow_insecure: bool = False


@contextmanager
def answering(
    server: str | None,
    collection: str | None,
    connection: Connection,
    *,
    weights: Path | None = None,
    device: Device = Device.AUTO,
) -> "Iterator[Answering]":
    """Connect to the server or open the collection, whichever of the two is given; typer.BadParameter otherwise.

    Raises the errors of `connect` and of opening a collection.
    """
    if server is not None and collection is None:
        if weights is not None:
            raise typer.BadParameter("--weights goes with --collection: a server has its own")
        if device is not Device.AUTO:
            raise typer.BadParameter("--device goes with --collection: a server has its own")
        with connect(server, **asdict(connection)) as client:
            yield client
    elif collection is not None and server is None:
        if any(astuple(Connection(**asdict(connection) | {"timeout_s": 0.0}))):
            raise typer.BadParameter(
                "tokens, TLS and --allow-insecure go with --server: a collection is opened in this process"
            )
        from whatwhere.service.local.collection import open_local

        with open_local(collection, device=device.value, weights=weights) as opened:
            yield opened
    else:
        raise typer.BadParameter("give either --server HOST:PORT or --collection DIR")
