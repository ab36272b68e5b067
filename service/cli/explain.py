"""See why: `whatwhere explain` and `whatwhere compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whatwhere.service.cli.app import app, new_table, out, print_json
from whatwhere.service.cli.options import AsJson, Device, OnDevice, Weights

if TYPE_CHECKING:
    from whatwhere.service.local.explain import Compared, Explained, NetworkChoice
    from whatwhere.service.search.factor_maps import FactorMap

MAX_RANK = 16  # so many colours are told apart

Picture = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw it to this file, in the format that its name ends in.")
]
StoredIn = Annotated[
    str | None,
    typer.Option(
        "--collection", "-c", help="Take stored images by name, images/ID, from their factors in this collection."
    ),
]
OfFiles = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:LAYER]",
        help="The network that describes files (see `whatwhere backbones`). [default: efficientnet-lite0]",
        show_default=False,
    ),
]
Opacity = Annotated[float, typer.Option(min=0, max=1, help="Of the colours on the picture, where they are strongest.")]


@app.command()
def explain(
    image: Annotated[str, typer.Argument(metavar="IMAGE|images/ID", help="A picture, or a stored image's name.")],
    picture: Picture = None,
    rank: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,...",
            help="Factors; several ranks are shown one below the other. [default: 8]",
            show_default=False,
        ),
    ] = None,
    backbone: OfFiles = None,
    weights: Weights = None,
    device: OnDevice = Device.AUTO,
    collection: StoredIn = None,
    pca: Annotated[bool, typer.Option("--pca", help="Show the principal components too, for comparison.")] = False,
    opacity: Opacity = 0.75,
    as_json: AsJson = False,
) -> None:
    """Show the factors of an image: what a search compares, where each is, and how much of the image it explains.

    The share is that of the energy of all factors, the box (fractions of the upright picture) surrounds the largest
    connected part of a factor's most activated cells. A file is described as `whatwhere index` does; of a stored image
    the factors are those that were stored, and no network runs.

    Example: `whatwhere explain bike.jpg --rank 1,2,3,4 --picture why.png`

    Example: `whatwhere explain images/12 --collection ~/pictures.ww --picture why.png`
    """
    from whatwhere.service.drawing.explanation import draw_explanation
    from whatwhere.service.drawing.tiles import check_picture_path, save_picture
    from whatwhere.service.local.explain import explain_file, explain_stored

    ranks = None if rank is None else _ranks(rank)
    if picture is not None:
        check_picture_path(picture)
    if collection is None:
        _require_files([image])
        chosen = {} if ranks is None else {"ranks": ranks}
        found = explain_file(Path(image), network=_network(backbone, weights, device), pca=pca, **chosen)
    else:
        _refuse_with_collection({"--backbone": backbone, "--weights": weights, "--pca": pca or None, "--rank": rank})
        found = explain_stored(image, collection)
    if picture is not None:
        save_picture(draw_explanation(found.photograph, found.by_rank, found.principal, opacity), picture)
    if as_json:
        print_json(_explanation(found))
        return
    _print_explanation(found)
    _print_picture(picture)


@app.command()
def compare(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE|images/ID...", help="Pictures, or stored images' names.")
    ],
    picture: Picture = None,
    rank: Annotated[int, typer.Option(min=1, max=MAX_RANK, help="Concepts to part the images into.")] = 5,
    backbone: OfFiles = None,
    weights: Weights = None,
    device: OnDevice = Device.AUTO,
    collection: StoredIn = None,
    opacity: Opacity = 0.75,
    as_json: AsJson = False,
) -> None:
    """Show what several images have in common: all are factorised together, and a concept has one colour in all.

    A concept that has less than 1 % of an image's energy is not in it. Of stored images only their stored factors are
    factorised together, and no network runs.

    Example: `whatwhere compare elephants/*.jpg --picture common.png`

    Example: `whatwhere compare images/3 images/8 --collection ~/pictures.ww --rank 4 --picture common.png`
    """
    from whatwhere.service.drawing.explanation import draw_comparison
    from whatwhere.service.drawing.tiles import check_picture_path, save_picture
    from whatwhere.service.local.explain import compare_files, compare_stored_images

    if len(images) < 2:
        raise typer.BadParameter("give two images or more; one alone is what `whatwhere explain` is for")
    if picture is not None:
        check_picture_path(picture)
    if collection is None:
        _require_files(images)
        compared = compare_files([Path(image) for image in images], rank, _network(backbone, weights, device))
    else:
        _refuse_with_collection({"--backbone": backbone, "--weights": weights})
        compared = compare_stored_images(images, collection, rank)
    if picture is not None:
        save_picture(draw_comparison(compared.photographs, compared.factors, opacity), picture)
    if as_json:
        print_json(_comparison(compared, rank))
        return
    _print_comparison(compared)
    _print_picture(picture)


def _ranks(listed: str) -> tuple[int, ...]:
    parts = [part.strip() for part in listed.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= MAX_RANK for part in parts):
        raise typer.BadParameter(f"--rank {listed}: give whole numbers from 1 to {MAX_RANK}, parted by commas")
    return tuple(dict.fromkeys(map(int, parts)))


def _require_files(images: Sequence[str]) -> None:
    for image in images:
        if image.startswith("images/") and not Path(image).exists():
            raise typer.BadParameter(
                f"{image} is a stored image's name, or no file: name its collection by --collection"
            )


def _refuse_with_collection(options: dict[str, object]) -> None:
    """Refuse what would need a network."""
    for option, value in options.items():
        if value is not None:
            raise typer.BadParameter(
                f"{option} does not go with --collection: stored images are shown by the factors that they were stored "
                "with; give the image's file in place of --collection"
            )


def _network(backbone: str | None, weights: Path | None, device: Device) -> "NetworkChoice":
    from whatwhere.service.local.explain import NetworkChoice

    named = {} if backbone is None else {"backbone": backbone}
    return NetworkChoice(weights=weights, device=device.value, **named)


def _explanation(found: "Explained") -> dict[str, Any]:
    """Return what programs read."""
    principal = None if found.principal is None else {"variance_shares": found.principal.variance_shares}
    ranks = [{"rank": rank, "factors": _factors(factors)} for rank, factors in found.by_rank.items()]
    return {"image": found.photograph.name, "ranks": ranks, "principal_components": principal}


def _comparison(compared: "Compared", rank: int) -> dict[str, Any]:
    """Return what programs read."""
    images = [
        {"image": photograph.name, "factors": _factors(factors)}
        for photograph, factors in zip(compared.photographs, compared.factors, strict=True)
    ]
    return {"rank": rank, "images": images}


def _factors(factors: "Sequence[FactorMap]") -> list[dict[str, Any]]:
    return [{"factor": factor.index, "share": factor.energy_share, "box": factor.box} for factor in factors]


def _print_explanation(found: "Explained") -> None:
    table = new_table("rank", "factor", "share", "box")
    for rank, factors in found.by_rank.items():
        for factor in factors:
            table.add_row(str(rank), *_cells(factor))
    out.print(table)
    if found.principal is not None:
        shares = ", ".join(f"{share:.0%}" for share in found.principal.variance_shares)
        out.print(f"principal components: {shares} of the variance")


def _print_comparison(compared: "Compared") -> None:
    table = new_table("image", "factor", "share", "box")
    for photograph, factors in zip(compared.photographs, compared.factors, strict=True):
        for factor in factors:
            table.add_row(photograph.name, *_cells(factor))
    out.print(table)


def _cells(factor: "FactorMap") -> tuple[str, str, str]:
    box = "not here" if factor.box is None else ",".join(f"{side:.3f}" for side in factor.box)
    return str(factor.index), f"{factor.energy_share:.1%}", box


def _print_picture(picture: Path | None) -> None:
    if picture is not None:
        out.print(f"picture: {picture}", soft_wrap=True)
