"""Search a collection: `whatwhere search`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whatwhere.indexer.storage.outputs import Output
from whatwhere.service.cli.app import app, messages, out, print_json
from whatwhere.service.cli.connection import Connection, answering, with_connection
from whatwhere.service.cli.options import (
    AsJson,
    CollectionWeights,
    DescriptorName,
    Filter,
    Overwrite,
    SearchedCollection,
    StoredImage,
)
from whatwhere.service.cli.places import path_or_none, place_of
from whatwhere.service.cli.tables import print_table
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.settings import Limits

if TYPE_CHECKING:
    from whatwhere.service.results import SearchResult


@app.command()
@with_connection(required=False)
def search(
    image: StoredImage,
    connection: Connection,
    collection: SearchedCollection = None,
    weights: CollectionWeights = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="x1,y1,x2,y2",
            help="Search for the content of this box: fractions of the upright image, or pixels with the suffix px. "
            "Repeat the option for several boxes.",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Search for what is white in this image; it is stretched to the size of the query."),
    ] = None,
    factor: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Search only for this factor of the query (see `whatwhere explain`). Repeatable."),
    ] = None,
    avoid: Annotated[list[int] | None, typer.Option(min=0, help="Ignore this factor of the query. Repeatable.")] = None,
    descriptor: Annotated[
        DescriptorName | None, typer.Option(help="Descriptor to compare by. Default: the collection's best.")
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, max=Limits.max_page_size, help="Number of results.")
    ] = Limits.default_page_size,
    expand: Annotated[
        int, typer.Option(min=0, max=Limits.max_expansion_count, help="Query expansion: number of first results used.")
    ] = 0,
    localize: Annotated[
        int, typer.Option(min=0, max=Limits.max_localize_count, help="Number of results to draw the matching box on.")
    ] = 0,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Localize with new forward passes: slower, and the results' files must exist."),
    ] = False,
    filter: Filter = "",
    min_score: Annotated[float | None, typer.Option(min=-1, max=1, help="Minimum score.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the query and the results with their boxes to this file.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Find stored images that show the same as an image or a part of it.

    The part can be one or several boxes, a mask, or single factors. `whatwhere explain` lists the factors of an image.

    Example: `whatwhere search bike.jpg -c ~/pictures.ww --region 0.2,0.3,0.7,0.9 --localize 10 --picture answer.png`
    """
    from whatwhere.service.local.search import Question, ask, check_files

    question = Question(
        image=image,
        regions=region or (),
        mask=mask,
        picture=None if picture is None else Output(picture, overwrite),
        options=SearchOptions(
            factors=factor or (),
            avoided_factors=avoid or (),
            descriptor=None if descriptor is None else descriptor.value,
            page_size=top,
            expansion_count=expand,
            localize_count=localize,
            exact=exact,
            min_score=min_score,
            filter=filter,
        ),
    )
    check_files(question)  # before the collection is opened, which takes seconds
    connection, collection = connection.or_variables(collection)
    with answering(connection, collection, weights=weights) as source:
        result = ask(question, source)
    if as_json:
        print_json(_answer(result))
        return
    _print_answer(result)
    if picture is not None:
        out.print(f"picture: {picture}", soft_wrap=True)


def _answer(result: "SearchResult") -> dict[str, Any]:
    """Return the answer for programs."""
    hits = [
        {
            "position": position,
            "image": hit.image.name,
            "uri": hit.image.uri,
            "path": path_or_none(hit.image.uri),
            "score": hit.score,
            "box": hit.box,
        }
        for position, hit in enumerate(result.hits, start=1)
    ]
    return {"region_fallback": result.region_fallback, "kept_factor_count": result.kept_factor_count, "hits": hits}


def _print_answer(result: "SearchResult") -> None:
    """Print the answer for people."""
    if result.region_fallback:
        messages.print(
            "no factor has more than three quarters of its heatmap inside the region: the closest one was used",
            style="yellow",
        )
    if not result.hits:
        messages.print("no image matches: the collection is empty, or --filter and --min-score leave none")
        return
    rows = []
    for position, hit in enumerate(result.hits, start=1):
        box = "" if hit.box is None else ",".join(f"{side:.3f}" for side in hit.box)
        rows.append((str(position), f"{hit.score:.3f}", hit.image.name, place_of(hit.image.uri), box))
    print_table(("position", "score", "image", "place", "box"), rows)
