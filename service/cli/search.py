"""Ask: `whatwhere search`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from whatwhere.service.cli.app import app, messages, new_table, out, print_json
from whatwhere.service.cli.connection import (
    SERVER_VARIABLE,
    AllowInsecure,
    Authority,
    Certificate,
    Key,
    ServerName,
    Timeout,
    Tls,
    TokenFile,
    connect,
)
from whatwhere.service.cli.options import AsJson, CollectionWeights, DescriptorName, Filter
from whatwhere.service.client.defaults import DEFAULT_TIMEOUT_S
from whatwhere.service.results import SearchResult


@app.command()
def search(
    image: Annotated[str, typer.Argument(metavar="IMAGE|images/ID", help="A picture, or a stored image's name.")],
    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT[,...]",
            help=f"Ask this server, or several in turn; else what the variable {SERVER_VARIABLE} says.",
        ),
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Or search this collection without a server.")
    ] = None,
    weights: CollectionWeights = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="x1,y1,x2,y2",
            help="Search for what is in this box: fractions of the upright picture, or pixels with the suffix px. Give "
            "it several times for what is in any of several boxes.",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Search for what is light in this picture, which is stretched over the query."),
    ] = None,
    concept: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Search only for this factor of the query, as `whatwhere explain` numbers them."),
    ] = None,
    avoid: Annotated[list[int] | None, typer.Option(min=0, help="Leave this factor of the query out.")] = None,
    descriptor: Annotated[
        DescriptorName | None, typer.Option(help="What to compare by; the best that the collection has.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=100, help="Results.")] = 10,
    expand: Annotated[int, typer.Option(min=0, max=20, help="Query expansion by so many first results.")] = 0,
    localize: Annotated[int, typer.Option(min=0, max=20, help="Draw the matching box on so many results.")] = 0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Localise by new forward passes; slower, needs the results' files.")
    ] = False,
    filter: Filter = "",
    min_score: Annotated[float | None, typer.Option(min=-1, max=1, help="Leave out results below.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw query and results, with their boxes, to this file.")
    ] = None,
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
    """Find the images that show what a picture, or a box drawn on it, shows.

    What of it: all, what is in boxes or light in a mask, or single factors, whose numbers `whatwhere explain` tells.

    Example: `whatwhere search bike.jpg -c ~/pictures.ww --region 0.2,0.3,0.7,0.9 --localize 10 --picture answer.png`
    """
    from whatwhere.service.local.search import Question, ask

    question = Question(
        image=image,
        regions=region or (),
        mask=mask,
        picture=picture,
        options={
            "concepts": concept or (),
            "avoided_concepts": avoid or (),
            "descriptor": None if descriptor is None else descriptor.value,
            "page_size": top,
            "expansion_count": expand,
            "localize_count": localize,
            "exact": exact,
            "min_score": min_score,
            "filter": filter,
        },
    )
    if server is None and collection is None:  # not by Typer, which would let the variable stand beside --collection
        server = os.environ.get(SERVER_VARIABLE) or None
    if (server is None) == (collection is None):
        raise typer.BadParameter("give either --server HOST:PORT or --collection DIR")
    if server is not None and weights is not None:
        raise typer.BadParameter("--weights goes with --collection: a server has its own")
    of_servers = (token_file, tls, ca, server_name, tls_certificate, tls_key, allow_insecure)
    if collection is not None and any(of_servers):
        raise typer.BadParameter("tokens, TLS and --allow-insecure go with --server: a collection is opened here")
    if collection is not None:
        result = ask(question, collection, weights)
    else:
        with connect(
            server or "",
            token_file=token_file,
            tls=tls,
            ca=ca,
            certificate=tls_certificate,
            key=tls_key,
            timeout_s=timeout,
            allow_insecure=allow_insecure,
            server_name=server_name,
        ) as client:
            result = ask(question, client)
    if as_json:
        print_json(_answer(result))
        return
    _print_answer(result)
    if picture is not None:
        out.print(f"picture: {picture}", soft_wrap=True)


def _answer(result: SearchResult) -> dict[str, Any]:
    """Return what programs read."""
    hits = [
        {"rank": rank, "image": hit.image.name, "uri": hit.image.uri, "score": hit.score, "box": hit.box}
        for rank, hit in enumerate(result.hits, start=1)
    ]
    return {"region_fallback": result.region_fallback, "kept_factor_count": result.kept_factor_count, "hits": hits}


def _print_answer(result: SearchResult) -> None:
    """Print what people read."""
    if result.region_fallback:
        messages.print("no factor lies three quarters inside the region: the nearest one was used", style="yellow")
    table = new_table("rank", "score", "image", "uri", "box")
    for rank, hit in enumerate(result.hits, start=1):
        box = "" if hit.box is None else ",".join(f"{side:.3f}" for side in hit.box)
        table.add_row(str(rank), f"{hit.score:.3f}", hit.image.name, hit.image.uri, box)
    out.print(table)
