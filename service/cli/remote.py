"""Ask or tell a server that runs elsewhere: `whatwhere health` and `refresh`."""

from typing import Annotated

import typer

from service.cli.connecting import (
    AllowInsecure,
    Authority,
    Certificate,
    Key,
    Server,
    Timeout,
    Tls,
    TokenFile,
    connect,
)
from service.cli.terminal import AsJson, app, out, print_json
from service.client import DEFAULT_TIMEOUT_S

_HEALTH_TIMEOUT_S = 5.0  # a probe is to say soon that nobody answers


@app.command()
def health(
    server: Server,
    service: Annotated[
        str, typer.Option(metavar="NAME", help="Ask for one service, such as whatwhere.v1.Generation.")
    ] = "",
    token_file: TokenFile = None,
    tls: Tls = False,
    ca: Authority = None,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    timeout: Timeout = _HEALTH_TIMEOUT_S,
    allow_insecure: AllowInsecure = False,
) -> None:
    """Print SERVING, NOT_SERVING or the error; exit code 0 for SERVING alone.

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
    ) as client:
        serving = client.health(service)
    out.print("SERVING" if serving else "NOT_SERVING")
    if not serving:
        raise typer.Exit(1)


@app.command()
def refresh(
    server: Server,
    as_json: AsJson = False,
    token_file: TokenFile = None,
    tls: Tls = False,
    ca: Authority = None,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    allow_insecure: AllowInsecure = False,
) -> None:
    """Have a server look for a newer generation of its collection now, and print which one it serves then.

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
    ) as client:
        info = client.refresh()
    if as_json:
        print_json({"generation": info.generation, "image_count": info.image_count})
    else:
        out.print(f"generation {info.generation}, {info.image_count} images")
