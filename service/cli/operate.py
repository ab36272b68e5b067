"""Operate running servers: `whatwhere health` and `refresh`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from whatwhere.indexer.errors import WhatwhereError
from whatwhere.service.cli.app import app, out, print_error, print_json
from whatwhere.service.cli.connection import Connection, with_connection
from whatwhere.service.cli.options import AsJson

if TYPE_CHECKING:
    from whatwhere.service.client.client import Client
    from whatwhere.service.results import CollectionInfo

_HEALTH_TIMEOUT_S = 5.0  # a probe should fail fast

_Answer = TypeVar("_Answer")


@app.command()
@with_connection(timeout_s=_HEALTH_TIMEOUT_S)
def health(
    connection: Connection,
    service: Annotated[
        str, typer.Option(metavar="NAME", help="Check one service, such as whatwhere.v1.Generation.")
    ] = "",
) -> None:
    """Check the health of a server: print SERVING, NOT_SERVING or the error.

    The exit code is 0 if the server is SERVING. With several servers, there is one line for each, and the exit code is
    0 if all are SERVING.

    Example: `whatwhere health --server 127.0.0.1:50051`
    """
    with connection.open() as client:
        answers = _of_each(client, lambda one: "SERVING" if one.health(service) else "NOT_SERVING")
    for address, answer in answers:
        _print(address, answer)
    if any(answer != "SERVING" for _, answer in answers):
        raise typer.Exit(1)


@app.command()
@with_connection()
def refresh(
    connection: Connection,
    as_json: AsJson = False,
) -> None:
    """Make a server look for a newer generation of its collection now, and print the one it serves.

    With several servers, there is one line for each, and the exit code is 0 if all have answered.

    Example: `whatwhere refresh --server 127.0.0.1:50051 --token-file admin.token`
    """
    with connection.open() as client:
        answers = _of_each(client, lambda one: one.refresh())
    if as_json:
        found = [_as_json(address, answer) for address, answer in answers]
        print_json(found if answers[0][0] else found[0])
    else:
        for address, answer in answers:
            _print(address, answer if isinstance(answer, WhatwhereError) else _summary(answer))
    if any(isinstance(answer, WhatwhereError) for _, answer in answers):
        raise typer.Exit(1)


def _of_each(client: "Client", ask: "Callable[[Client], _Answer]") -> list[tuple[str, _Answer | WhatwhereError]]:
    """Ask all servers in parallel; return address and answer, or error, of each.

    With a single server the address is "", and its error is raised.
    """
    servers = client.servers()
    if servers == (client,):
        return [("", ask(client))]

    def answer(one: "Client") -> _Answer | WhatwhereError:
        try:
            return ask(one)
        except WhatwhereError as error:  # of this server only: the other answers are still shown
            return error

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(servers)) as pool:
        return list(zip((one.address for one in servers), pool.map(answer, servers), strict=True))


def _print(address: str, answer: str | WhatwhereError) -> None:
    """Print a server's address and answer; for an error the reason, and its message on standard error."""
    if isinstance(answer, WhatwhereError):
        print_error(answer)
        answer = answer.reason
    out.print(f"{address} {answer}".strip(), soft_wrap=True)


def _summary(collection: "CollectionInfo") -> str:
    return f"generation {collection.generation}, {collection.image_count} images"


def _as_json(address: str, answer: "CollectionInfo | WhatwhereError") -> dict[str, Any]:
    named = {"server": address} if address else {}
    if isinstance(answer, WhatwhereError):
        return {**named, "error": answer.reason, "message": str(answer)}
    return {**named, "generation": answer.generation, "image_count": answer.image_count}
