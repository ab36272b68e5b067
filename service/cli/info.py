"""What there is: `whatwhere info`, `images`, `backbones`."""

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from whatwhere.service.cli.app import app, new_table, out, print_json
from whatwhere.service.cli.options import AsJson, Collection, Filter

if TYPE_CHECKING:
    from whatwhere.indexer.catalog.catalog import Catalog
    from whatwhere.indexer.catalog.records import ImageRecord

_AT_ONCE = 1000  # a statement has room for so many ids, and for some more


class State(StrEnum):
    """What became of an image."""

    INDEXED = "indexed"
    FAILED = "failed"
    REMOVED = "removed"


@app.command()
def info(collection: Collection, as_json: AsJson = False) -> None:
    """Say what a collection holds: counts, recipe, indexes, bytes on disk."""
    from whatwhere.indexer.maintenance.info import inspect_collection

    found = inspect_collection(collection)
    if as_json:
        print_json(found)
        return
    table = new_table("", "")
    for name, value in found.items():
        text = "\n".join(f"{key}: {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), text)
    out.print(table)


@app.command()
def images(
    collection: Collection,
    state: Annotated[State | None, typer.Option(help="Only images in this state.")] = None,
    filter: Filter = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the images of a collection, the failed ones with their reasons."""
    from whatwhere.indexer.collection.layout import Layout
    from whatwhere.indexer.collection.recipe import Recipe
    from whatwhere.indexer.collection.stores import open_catalog

    layout = Layout.at(collection)
    Recipe.load(layout)
    with open_catalog(layout) as catalog:
        records = _listed(catalog, filter, state.value if state else None, limit)
    if as_json:
        print_json(
            [
                {"name": f"images/{record.id}", "uri": next(iter(record.uris), "")} | dataclasses.asdict(record)
                for record in records
            ]
        )
        return
    table = new_table("name", "state", "size", "uri", "reason")
    for record in records:
        size = f"{record.width} x {record.height}" if record.width else ""
        uris = "\n".join(record.uris)
        table.add_row(f"images/{record.id}", record.state, size, uris, record.failure_message or "")
    out.print(table)


def _listed(catalog: "Catalog", filter: str, state: str | None, limit: int | None) -> "list[ImageRecord]":
    """Return images by id, those that a filter holds for where there is one."""
    from whatwhere.indexer.metadata.filters import parse

    if not filter:
        return catalog.images(state=state, limit=limit)
    ids = catalog.ids_where(parse(filter), state=state)[:limit].tolist()
    found: dict[int, ImageRecord] = {}
    for start in range(0, len(ids), _AT_ONCE):
        found |= catalog.images_by_id(ids[start : start + _AT_ONCE])
    return [found[identifier] for identifier in ids if identifier in found]


@app.command()
def backbones(as_json: AsJson = False) -> None:
    """List the networks for `index --backbone`: what they give, what they cost, whether their weights are here."""
    from whatwhere.indexer.backbones.backbone import choose_device
    from whatwhere.indexer.backbones.engines import choose_engine
    from whatwhere.indexer.backbones.listing import list_backbones
    from whatwhere.indexer.backbones.names import DEFAULT_PRECISION

    listed = list_backbones()
    if as_json:
        print_json([dataclasses.asdict(entry) for entry in listed])
        return
    table = new_table("name", "layer", "channels", "stride", "GMACs", "weights")
    for column in table.columns:
        column.no_wrap = True
    table.padding = (0, 1, 0, 0)  # so that the longest row fits a terminal of 80 columns
    for entry in listed:
        numbers = (str(entry.channels), str(entry.stride), f"{entry.gmacs:.1f}")
        table.add_row(entry.name, entry.layer, *numbers, "here" if entry.weights_here else entry.weights)
    out.print(table)
    out.print(
        "Where weights are not here, the file or package that holds them is named: whatwhere fetches torchvision's at "
        "first use. GMACs are for a picture of 512 x 672. Any torchvision classifier with ReLU can be cut at a layer "
        "of your own by NAME:LAYER (resnet50:layer3, densenet121:relu); a name or a layer that does not fit is "
        "answered with those that do."
    )
    device = choose_device()
    out.print(f"Here networks run on {device.type}, by {choose_engine(device, DEFAULT_PRECISION)}.")
