"""`whatwhere explain` and `whatwhere compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE
from whatwhere.indexer.features.names import DEFAULT_RANK
from whatwhere.indexer.storage.files import file_named
from whatwhere.indexer.storage.outputs import Output
from whatwhere.service.cli.app import app, out, print_json
from whatwhere.service.cli.connection import SERVER_VARIABLE, Connection, answering, with_connection
from whatwhere.service.cli.options import (
    COLLECTION_VARIABLE,
    AsJson,
    Device,
    OnDevice,
    Overwrite,
    SearchedCollection,
    StoredImage,
    Weights,
)
from whatwhere.service.cli.tables import print_table
from whatwhere.service.drawing.defaults import OPACITY
from whatwhere.service.settings import Limits

if TYPE_CHECKING:
    from whatwhere.service.drawing.explanation import Drawn
    from whatwhere.service.local.explain import Compared, Explained
    from whatwhere.service.local.files import NetworkChoice

MAX_RANK = Limits.max_compared_rank  # more colors than this cannot be told apart

Picture = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw to this file; its extension chooses the format.")
]
OfFiles = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:LAYER]",
        help=f"Network that describes files (see `whatwhere backbones`). [default: {DEFAULT_BACKBONE}]",
        show_default=False,
    ),
]
Opacity = Annotated[float, typer.Option(min=0, max=1, help="Opacity of the heatmaps where they are strongest.")]


@app.command()
@with_connection(required=False)
def explain(
    image: StoredImage,
    connection: Connection,
    picture: Picture = None,
    rank: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,...",
            help="Number of factors of a file; several numbers are shown one below the other. "
            f"[default: {DEFAULT_RANK}]",
            show_default=False,
        ),
    ] = None,
    backbone: OfFiles = None,
    weights: Weights = None,
    device: OnDevice = Device.AUTO,
    collection: SearchedCollection = None,
    pca: Annotated[bool, typer.Option("--pca", help="Show the principal components too, for comparison.")] = False,
    opacity: Opacity = OPACITY,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show the factors of an image: what a search compares, where each factor is, and how much of the image it covers.

    The share is a factor's part of the energy of all factors. The box (fractions of the upright image) surrounds the
    largest connected region of the factor's most activated cells.

    With --server or --collection, a stored image is explained by its stored factors, without a network; a file is
    described by the collection's network. Without them, a file is described by --backbone.

    Example: `whatwhere explain bike.jpg --rank 1,2,3,4 --picture why.png`

    Example: `whatwhere explain images/12 --collection ~/pictures.ww --picture why.png`
    """
    from whatwhere.service.drawing.explanation import draw_explanation
    from whatwhere.service.drawing.tiles import check_picture, save_picture

    ranks = None if rank is None else _ranks(rank)
    output = None if picture is None else Output(picture, overwrite)
    if output is not None:
        check_picture(output, [file_named(image)])
    connection, collection = _for_stored_images(connection, collection, [image])
    if connection.server is None and collection is None:
        from whatwhere.service.local.files import explain_file

        chosen = {} if ranks is None else {"ranks": ranks}
        found = explain_file(file_named(image), network=_network(backbone, weights, device), pca=pca, **chosen)
    else:
        _refuse({"--backbone": backbone, "--pca": pca or None, "--rank": rank}, connection.server)
        from whatwhere.service.local.explain import explain_image

        with answering(connection, collection, weights=weights, device=device) as source:
            found = explain_image(image, source, output)
    if output is not None:
        save_picture(draw_explanation(found.photograph, found.by_rank, found.principal, opacity), output)
    if as_json:
        print_json(_explanation(found))
        return
    _print_explanation(found)
    _print_picture(picture)


@app.command()
@with_connection(required=False)
def compare(
    connection: Connection,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|images/ID...",
            help="Image files; or, with --server or --collection, a file or a stored image, then stored images.",
        ),
    ],
    picture: Picture = None,
    rank: Annotated[
        int, typer.Option(min=1, max=MAX_RANK, help="Number of factors to decompose the images into.")
    ] = Limits.default_compared_rank,
    backbone: OfFiles = None,
    weights: Weights = None,
    device: OnDevice = Device.AUTO,
    collection: SearchedCollection = None,
    opacity: Opacity = OPACITY,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show what several images have in common: they are factorized jointly, and a factor has one color in all of them.

    A factor with less than 1 % of an image's energy counts as absent from it. Stored images are compared by their
    stored factors, without a network.

    Example: `whatwhere compare elephants/*.jpg --picture common.png`

    Example: `whatwhere compare images/3 images/8 --collection ~/pictures.ww --rank 4 --picture common.png`
    """
    from whatwhere.service.drawing.explanation import draw_comparison
    from whatwhere.service.drawing.tiles import check_picture, save_picture

    if len(images) < 2:
        raise typer.BadParameter("give two images or more; for one image, use `whatwhere explain`")
    output = None if picture is None else Output(picture, overwrite)
    if output is not None:
        check_picture(output, map(file_named, images))
    connection, collection = _for_stored_images(connection, collection, images)
    if connection.server is None and collection is None:
        from whatwhere.service.local.files import compare_files

        compared = compare_files([file_named(image) for image in images], rank, _network(backbone, weights, device))
    else:
        _refuse({"--backbone": backbone}, connection.server)
        from whatwhere.service.local.explain import compare_images

        with answering(connection, collection, weights=weights, device=device) as source:
            compared = compare_images(images, source, rank, output)
    if output is not None:
        save_picture(draw_comparison(compared.photographs, compared.factors, opacity), output)
    if as_json:
        print_json(_comparison(compared, rank))
        return
    _print_comparison(compared)
    _print_picture(picture)


def _ranks(listed: str) -> tuple[int, ...]:
    parts = [part.strip() for part in listed.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= MAX_RANK for part in parts):
        raise typer.BadParameter(f"--rank {listed}: give whole numbers from 1 to {MAX_RANK}, comma-separated")
    return tuple(dict.fromkeys(map(int, parts)))


def _for_stored_images(
    connection: Connection, collection: str | None, images: Sequence[str]
) -> tuple[Connection, str | None]:
    """Return the connection or collection to ask. Stored images need one; files are described here without either.

    Raises BadParameter if a stored image is named, and neither is given.
    """
    stored = [image for image in images if image.startswith("images/") and not Path(image).exists()]
    if connection.server is not None or collection is not None or not stored:
        return connection, collection
    connection, collection = connection.or_variables(collection)
    if connection.server is None and collection is None:
        raise typer.BadParameter(
            f"{stored[0]} is the name of a stored image, or a file that does not exist: for a stored image, give its "
            f"--collection or --server (or the variable {SERVER_VARIABLE} or {COLLECTION_VARIABLE})"
        )
    return connection, collection


def _refuse(options: dict[str, object], server: str | None) -> None:
    """Refuse what chooses another description than the collection's."""
    source = "--collection" if server is None else "--server"
    for option, value in options.items():
        if value is not None:
            raise typer.BadParameter(
                f"{option} does not go with {source}: images are described as the collection's are; to describe a file "
                f"in another way, leave {source} out"
            )


def _network(backbone: str | None, weights: Path | None, device: Device) -> "NetworkChoice":
    from whatwhere.service.local.files import NetworkChoice

    return NetworkChoice(backbone or DEFAULT_BACKBONE, weights, device.value)


def _explanation(found: "Explained") -> dict[str, Any]:
    """Return the explanation for programs."""
    principal = None if found.principal is None else {"variance_shares": found.principal.variance_shares}
    ranks = [{"rank": rank, "factors": _factors(factors)} for rank, factors in found.by_rank.items()]
    return {"image": found.photograph.name, "ranks": ranks, "principal_components": principal}


def _comparison(compared: "Compared", rank: int) -> dict[str, Any]:
    """Return the comparison for programs."""
    images = [
        {"image": photograph.name, "factors": _factors(factors)}
        for photograph, factors in zip(compared.photographs, compared.factors, strict=True)
    ]
    return {"rank": rank, "images": images}


def _factors(factors: "Sequence[Drawn]") -> list[dict[str, Any]]:
    return [{"factor": factor.index, "share": factor.energy_share, "box": factor.box} for factor in factors]


def _print_explanation(found: "Explained") -> None:
    rows = [(str(rank), *_cells(factor)) for rank, factors in found.by_rank.items() for factor in factors]
    print_table(("rank", "factor", "share", "box"), rows)
    if found.principal is not None:
        shares = ", ".join(f"{share:.0%}" for share in found.principal.variance_shares)
        out.print(f"principal components: {shares} of the variance")


def _print_comparison(compared: "Compared") -> None:
    rows = [
        (photograph.name, *_cells(factor))
        for photograph, factors in zip(compared.photographs, compared.factors, strict=True)
        for factor in factors
    ]
    print_table(("image", "factor", "share", "box"), rows, names=("image",))


def _cells(factor: "Drawn") -> tuple[str, str, str]:
    box = "not here" if factor.box is None else ",".join(f"{side:.3f}" for side in factor.box)
    return str(factor.index), f"{factor.energy_share:.1%}", box


def _print_picture(picture: Path | None) -> None:
    if picture is not None:
        out.print(f"picture: {picture}", soft_wrap=True)
