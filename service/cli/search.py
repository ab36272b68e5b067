"""Ask: `whatwhere search`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from whatwhere.service.cli.app import app, messages, new_table, out, print_json
from whatwhere.service.cli.connection import Connection, with_connection
from whatwhere.service.cli.options import AsJson, CollectionWeights, DescriptorName, Filter
from whatwhere.service.results import SearchResult


@app.command()
@with_connection(required=False)
def search(
    image: Annotated[str, typer.Argument(metavar="IMAGE|images/ID", help="A picture, or a stored image's name.")],
    connection: Connection,
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
            "factors": concept or (),
            "avoided_factors": avoid or (),
            "descriptor": None if descriptor is None else descriptor.value,
            "page_size": top,
            "expansion_count": expand,
            "localize_count": localize,
            "exact": exact,
            "min_score": min_score,
            "filter": filter,
        },
    )
    asked = connection.instead_of(collection)
    if asked is not None and weights is not None:
        raise typer.BadParameter("--weights goes with --collection: a server has its own")
    if asked is None:
        assert collection is not None  # what instead_of answers None for
        result = ask(question, collection, weights)
    else:
        with asked.open() as client:
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
