"""Keep a collection well: `whatwhere verify`, `rebuild`, `compact`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from whatwhere.service.cli import progress
from whatwhere.service.cli.app import app, messages, new_table, out, print_json, stoppable
from whatwhere.service.cli.options import AsJson, Collection, CollectionWeights, Device, OnDevice, Preset, names

Whiteners = Annotated[
    Path | None, typer.Option(help="A folder of whiteners (see `whatwhere whiten`) in place of the collection's own.")
]


@app.command()
def verify(
    collection: Collection,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also derive every vector again from its shard and compare.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    whiteners: Whiteners = None,
    device: OnDevice = Device.AUTO,
    weights: CollectionWeights = None,
    as_json: AsJson = False,
) -> None:
    """Compare every file of a collection with what was written; exit code 1 when something is wrong and stays so.

    Checksums, counts, references and schema versions; nothing is changed without --repair. That derives vectors and
    generations again from shards, and describes again the images of a damaged shard from their files (for which device
    and weights are); a damaged catalogue needs a backup. The whole collection is read.

    Example: `whatwhere verify -c ~/pictures.ww --repair`
    """
    from whatwhere.indexer.maintenance.verify import verify_collection

    found = verify_collection(collection, deep)
    remaining = found
    if repair and found:
        from whatwhere.indexer.maintenance.repair import repair as mend
        from whatwhere.indexer.pipeline.settings import IndexSettings

        settings = IndexSettings(device=device.value, weights=weights)
        with stoppable("run again to continue"), progress.of_indexing(messages) as report:
            remaining = mend(collection, found, whiteners, settings, report)
    if as_json:
        listed = [
            dataclasses.asdict(fault) | {"repair": fault.repair, "remains": fault in remaining} for fault in found
        ]
        print_json(listed)
    elif not found:
        out.print(f"{collection}: sound", soft_wrap=True)
    else:
        table = new_table("part", "file", "problem", "repair")
        for fault in found:
            table.add_row(fault.part.value, fault.file, fault.problem, fault.repair)
        out.print(table)
        if repair:
            out.print(f"{len(found)} faults, {len(remaining)} remain", soft_wrap=True)
    if remaining:
        raise typer.Exit(1)


@app.command()
def rebuild(
    collection: Collection,
    descriptors: Annotated[
        str | None, typer.Option(help="What to search by from now on, parted by commas; the collection's own.")
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="How descriptors are made of factors; the collection's own.")
    ] = None,
    whiteners: Whiteners = None,
    index_factory: Annotated[
        str | None,
        typer.Option(
            metavar="FACTORY",
            help="How vectors are kept: auto (by their number: exact, then compressed with re-ranking), or a faiss "
            "factory string: Flat (exact), SQ8 (a quarter of the bytes), HNSW32, IVF1024,Flat; the collection's own, "
            "auto for a new one.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish a generation with other vectors, derived from what the collection keeps: no picture is read.

    A descriptor can be added when the shards keep what it needs (what, what-and-where always; fused, r-mac and the
    other baselines where the collection was made with them). Another network is another collection: index again into a
    new directory. A collection of an older whatwhere is brought up to date.

    Example: `whatwhere rebuild -c ~/pictures.ww --whiteners my-whiteners --index-factory Flat`
    """
    from whatwhere.indexer.maintenance.rebuild import RebuildSettings
    from whatwhere.indexer.maintenance.rebuild import rebuild as derive

    settings = RebuildSettings(
        descriptors=None if descriptors is None else names(descriptors),
        preset=None if preset is None else preset.value,
        whiteners=whiteners,
        index_factory=index_factory,
    )
    with stoppable("the old generation stays: run again"):
        manifest = derive(collection, settings)
    if as_json:
        print_json({"generation": manifest.number, "images": manifest.image_count, "descriptors": [*manifest.indexes]})
        return
    listed = ", ".join(manifest.indexes)
    out.print(f"{collection}: generation {manifest.number}, {manifest.image_count} images, {listed}", soft_wrap=True)


@app.command()
def compact(collection: Collection, as_json: AsJson = False) -> None:
    """Reclaim the space of what was removed, and write many small files together.

    Run it now and then, after many removals or daily additions; a server goes on meanwhile. What was removed with
    `whatwhere remove` cannot be brought back from the collection afterwards, only from its file.
    """
    from whatwhere.indexer.maintenance.compact import compact as reclaim

    with stoppable("what was finished is kept: run again to continue"):
        done = reclaim(collection)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    saved = (done.before - done.after) / 1e6
    out.print(f"{collection}: generation {done.generation}, {saved:.1f} MB reclaimed", soft_wrap=True)
