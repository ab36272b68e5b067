"""Ask or tell servers that run elsewhere: `whatwhere health` and `refresh`."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from whatwhere.indexer.errors import WhatwhereError
from whatwhere.service.cli.app import app, messages, out, print_json
from whatwhere.service.cli.connection import (
    AllowInsecure,
    Authority,
    Certificate,
    Key,
    Server,
    ServerName,
    Timeout,
    Tls,
    TokenFile,
    connect,
)
from whatwhere.service.cli.options import AsJson
from whatwhere.service.client.defaults import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from whatwhere.service.client.client import Client
    from whatwhere.service.results import CollectionInfo

_HEALTH_TIMEOUT_S = 5.0  # a probe is to say soon that nobody answers

_Answer = TypeVar("_Answer")


@app.command()
def health(
    server: Server,
    service: Annotated[
        str, typer.Option(metavar="NAME", help="Ask for one service, such as whatwhere.v1.Generation.")
    ] = "",
    token_file: TokenFile = None,
    tls: Tls = False,
    ca: Authority = None,
    server_name: ServerName = None,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    timeout: Timeout = _HEALTH_TIMEOUT_S,
    allow_insecure: AllowInsecure = False,
) -> None:
    """Print SERVING, NOT_SERVING or the error; exit code 0 for SERVING alone.

    Of several servers, a line for each, and exit code 0 when all are SERVING.

    Example: `whatwhere health --server 127.0.0.1:50051`
    """
    with connect(
        server,
        token_file=token_file,
        tls=tls,
        ca=ca,
        certificate=tls_certificate,
        key=tls_key,
        timeout_s=timeout,
        allow_insecure=allow_insecure,
        server_name=server_name,
    ) as client:
        answers = _of_each(client, lambda one: "SERVING" if one.health(service) else "NOT_SERVING")
    for address, answer in answers:
        _print(address, answer)
    if any(answer != "SERVING" for _, answer in answers):
        raise typer.Exit(1)


@app.command()
def refresh(
    server: Server,
    as_json: AsJson = False,
    token_file: TokenFile = None,
    tls: Tls = False,
    ca: Authority = None,
    server_name: ServerName = None,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    allow_insecure: AllowInsecure = False,
) -> None:
    """Have a server look for a newer generation of its collection now, and print which one it serves then.

    Of several servers all look, and each has a line; exit code 0 when all have answered.

    Example: `whatwhere refresh --server 127.0.0.1:50051 --token-file admin.token`
    """
    with connect(
        server,
        token_file=token_file,
        tls=tls,
        ca=ca,
        certificate=tls_certificate,
        key=tls_key,
        timeout_s=timeout,
        allow_insecure=allow_insecure,
        server_name=server_name,
    ) as client:
        answers = _of_each(client, lambda one: one.refresh())
    if as_json:
        found = [_as_json(address, answer) for address, answer in answers]
        print_json(found if answers[0][0] else found[0])
    else:
        for address, answer in answers:
            _print(address, answer if isinstance(answer, WhatwhereError) else _said(answer))
    if any(isinstance(answer, WhatwhereError) for _, answer in answers):
        raise typer.Exit(1)


def _of_each(client: "Client", ask: "Callable[[Client], _Answer]") -> list[tuple[str, _Answer | WhatwhereError]]:
    """Ask all servers at once; gives each one's address, "" where there is but one, and its answer or error.

    The error of one alone is raised.
    """
    servers = client.servers()
    if servers == (client,):
        return [("", ask(client))]

    def answer(one: "Client") -> _Answer | WhatwhereError:
        try:
            return ask(one)
        except WhatwhereError as error:  # of this one: the others answer all the same
            return error

    with ThreadPoolExecutor(len(servers)) as pool:
        return list(zip((one.address for one in servers), pool.map(answer, servers), strict=True))


def _print(address: str, answer: str | WhatwhereError) -> None:
    """Print a server's answer behind its address; of an error its reason, and its sentence beside."""
    if isinstance(answer, WhatwhereError):
        messages.print(f"error: {answer}", style="red", soft_wrap=True)
        answer = answer.reason
    out.print(f"{address} {answer}".strip(), soft_wrap=True)


def _said(collection: "CollectionInfo") -> str:
    return f"generation {collection.generation}, {collection.image_count} images"


def _as_json(address: str, answer: "CollectionInfo | WhatwhereError") -> dict[str, Any]:
    named = {"server": address} if address else {}
    if isinstance(answer, WhatwhereError):
        return {**named, "error": answer.reason, "message": str(answer)}
    return {**named, "generation": answer.generation, "image_count": answer.image_count}
