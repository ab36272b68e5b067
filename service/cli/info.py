"""`whatwhere info`, `images` and `backbones`: say what there is."""

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.features.names import DESCRIPTORS, find_composition, pooled_by
from whatwhere.indexer.sources.kinds import described
from whatwhere.indexer.vectors.names import EXACT
from whatwhere.service.cli.app import app, messages, out, print_json
from whatwhere.service.cli.options import AsJson, Collection, Filter
from whatwhere.service.cli.places import path_or_none, place_of
from whatwhere.service.cli.tables import print_table

if TYPE_CHECKING:
    from whatwhere.indexer.catalog.catalog import Catalog
    from whatwhere.indexer.catalog.records import ImageRecord

_STORED = {
    "catalog": "catalog: names, places and metadata of the images",
    "shards": "factors of the images",
    "segments": "vectors",
    "generations": "manifests of the last generations",
    "whiteners": "whiteners",
}


class State(StrEnum):
    """States of a file that a run met."""

    INDEXED = "indexed"
    FAILED = "failed"
    REMOVED = "removed"
    SKIPPED = "skipped"  # no image: a file or folder that the last run passed over


@app.command()
def info(collection: Collection, as_json: AsJson = False) -> None:
    """Say what a collection holds: images, network, descriptors, generation, sizes, and what to do next.

    Example: `whatwhere info -c ~/pictures.ww`
    """
    from whatwhere.indexer.maintenance.info import inspect_collection

    found = inspect_collection(collection)
    if as_json:
        print_json(found)
        return
    print_table(("", "text"), _report(found), header=False)
    for step in _next_steps(found):
        out.print(step, soft_wrap=True)


def _report(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, text) rows for people; what a collection does not have is left out."""
    recipe, images = found["recipe"], found["images"]
    yield "collection", found["collection"]
    states = [f"{count:,} {state}" for state, count in images.items() if count or state == State.INDEXED]
    yield "images", f"{found['searchable_images']:,} searchable ({', '.join(states)})"
    if found["generation"] is not None:
        published = datetime.fromisoformat(found["published_at"]).astimezone(UTC)
        yield "generation", f"{found['generation']}, published {published:%Y-%m-%d %H:%M} UTC"
    yield "network", f"{recipe['backbone']}, layer {recipe['layer']}, computed in {recipe['precision']}"
    yield "factors", f"{recipe['rank']} for each image (rank {recipe['rank']})"
    yield "descriptors", f"{', '.join(recipe['descriptors'])} (preset {recipe['preset']})"
    if addable := _addable(recipe):
        yield "can be added", f"{', '.join(addable)} (whatwhere rebuild --descriptors ...)"
    for name, held in found["vectors"].items():
        kinds = ", ".join("exact" if kind == EXACT else kind for kind in held["kinds"])
        yield f"vectors of {name}", f"{held['count']:,} of {held['dimensions']:,} dimensions, {kinds}"
    for name, address in found["stores"].items():
        if address is not None:
            yield f"{name} stored in", address
    sizes = [(_STORED[name], count) for name, count in found["bytes"].items() if count]
    yield "size", f"{_size(sum(count for _, count in sizes))} on disk"
    for name, count in sizes:
        yield "", f"{_size(count)}  {name}"


def _addable(recipe: Mapping[str, Any]) -> list[str]:
    """Return the descriptors that the collection lacks, and whose vectors can be computed from its shards."""
    others = [find_composition(name, recipe["preset"]) for name in DESCRIPTORS if name not in recipe["descriptors"]]
    return [other.name for other in others if set(pooled_by([other])) <= set(recipe["pooled"])]


def _size(byte_count: int) -> str:
    """Write a number of bytes in GB, MB or kB."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6)):
        if byte_count >= divisor:
            return f"{byte_count / divisor:.1f} {unit}"
    return f"{byte_count / 1e3:.1f} kB"


def _next_steps(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what to do next, each with its command."""
    images, place = found["images"], quote(found["collection"])
    if found["generation"] is None:
        yield f"Nothing is published yet. Continue: whatwhere index PATH... -c {place}"
    if images["failed"]:
        yield f"{images['failed']:,} failed. Reasons: whatwhere images --state failed -c {place}"
    if found["skipped"]:
        kinds = described(found["skipped"])
        yield f"Passed over: {kinds}. Reasons: whatwhere images --state skipped -c {place}"
    if images["removed"]:
        yield f"{images['removed']:,} removed. Reclaim their space: whatwhere compact -c {place}"


@app.command()
def images(
    collection: Collection,
    state: Annotated[
        State | None, typer.Option(help="Only images in this state; `skipped` lists files that were passed over.")
    ] = None,
    filter: Filter = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of images.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the images of a collection; failed ones, and files that were passed over, with their reasons.

    Example: `whatwhere images -c ~/pictures.ww --state failed`
    """
    if state is State.SKIPPED:
        _print_skipped(collection, filter, limit, as_json)
        return
    from whatwhere.indexer.collection.layout import Layout
    from whatwhere.indexer.collection.recipe import Recipe
    from whatwhere.indexer.collection.stores import open_catalog

    layout = Layout.at(collection)
    Recipe.load(layout)
    with open_catalog(layout) as catalog:
        records = _listed(catalog, filter, state.value if state else None, limit)
    if as_json:
        print_json(list(map(_for_programs, records)))
        return
    rows = []
    for record in records:
        size = f"{record.width} x {record.height}" if record.width else ""
        places = "\n".join(f"{place_of(uri)}{' (gone)' * (uri in record.vanished_uris)}" for uri in record.uris)
        rows.append((f"images/{record.id}", record.state, size, places, record.failure_message or ""))
    if rows:
        print_table(("name", "state", "size", "place", "reason"), rows)
    else:
        messages.print("no image matches" if filter or state else "the collection has no images")


def _for_programs(record: "ImageRecord") -> dict[str, Any]:
    """Return an image by the names that filters and the API have; then by those of 0.2.0, which stay for programs."""
    uri = next(iter(record.uris), "")
    return {
        "name": f"images/{record.id}",
        "uri": uri,
        "path": path_or_none(uri),
        "width_px": record.width,
        "height_px": record.height,
        "sha256": record.content_hash,
        "create_time": record.created_at.isoformat().replace("+00:00", "Z"),
        "metadata": record.user_metadata,
        **dataclasses.asdict(record),
    }


def _print_skipped(collection: str, filter: str, limit: int | None, as_json: bool) -> None:
    """Print what the last run of each place passed over."""
    from whatwhere.indexer.collection.layout import Layout
    from whatwhere.indexer.collection.recipe import Recipe
    from whatwhere.indexer.collection.stores import open_catalog

    if filter:
        raise InvalidRequest(
            "skipped files have no fields to filter by: leave out --filter, or use --state failed", field="filter"
        )
    layout = Layout.at(collection)
    Recipe.load(layout)
    with open_catalog(layout) as catalog:
        records = catalog.skipped(limit)
    if as_json:
        print_json([dataclasses.asdict(record) | {"state": State.SKIPPED} for record in records])
        return
    print_table(("kind", "file", "reason"), [(record.kind, place_of(record.uri), record.reason) for record in records])


def _listed(catalog: "Catalog", filter: str, state: str | None, limit: int | None) -> "list[ImageRecord]":
    """Return images by id, or only those that match the filter."""
    if not filter:
        return catalog.images(state=state, limit=limit)
    from whatwhere.indexer.metadata.filters import parse

    ids = catalog.ids_where(parse(filter), state=state)[:limit].tolist()
    found = catalog.images_by_id(ids)
    return [found[identifier] for identifier in ids if identifier in found]


@app.command()
def backbones(as_json: AsJson = False) -> None:
    """List the networks for `index --backbone`: their output, their cost, and whether their weights are here."""
    from whatwhere.indexer.backbones.listing import list_backbones, uses_openvino

    listed = list_backbones()
    if as_json:
        print_json([dataclasses.asdict(entry) for entry in listed])
        return
    rows = []
    for entry in listed:
        numbers = (str(entry.channels), str(entry.stride), f"{entry.gmacs:.1f}")
        rows.append((entry.name, entry.layer, *numbers, "here" if entry.weights_here else entry.weights))
    print_table(("name", "layer", "channels", "stride", "GMACs", "weights"), rows)
    out.print(
        "If the weights are not here, the table names their file or package; torchvision's files are downloaded at "
        "first use. GMACs are for an image of 512 x 672 pixels. NAME:LAYER cuts any torchvision classifier with ReLU "
        "at a layer of your choice (resnet50:layer3, densenet121:relu); an unknown name or layer is answered with the "
        "known ones."
    )
    if uses_openvino():
        out.print("On a CPU, networks run with OpenVINO; with --device cuda, or auto and a GPU, with PyTorch.")
    else:
        out.print(
            "Networks run with PyTorch. On a CPU, OpenVINO takes about half the time: pip install 'whatwhere[openvino]'"
        )
