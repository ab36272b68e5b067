"""Maintain a collection: `whatwhere verify`, `rebuild`, `compact`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from whatwhere.service.cli import progress
from whatwhere.service.cli.app import app, messages, out, print_json, stoppable
from whatwhere.service.cli.options import AsJson, Collection, CollectionWeights, Device, OnDevice, Preset, names
from whatwhere.service.cli.tables import print_table

Whiteners = Annotated[
    Path | None, typer.Option(help="Folder of whiteners (see `whatwhere whiten`). Default: the collection's.")
]


@app.command()
def verify(
    collection: Collection,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also derive every vector again from its shard, and compare.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,
    whiteners: Whiteners = None,
    device: OnDevice = Device.AUTO,
    weights: CollectionWeights = None,
    as_json: AsJson = False,
) -> None:
    """Check a collection for damage. The exit code is 1 if faults remain.

    Reads the whole collection and compares checksums, counts, references and schema versions. Without --repair nothing
    is changed. --repair derives vectors and generations again from the shards, and describes the images of a damaged
    shard again from their files (--device and --weights are for this). A damaged catalog needs a backup.

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
        out.print(f"{collection}: no faults", soft_wrap=True)
    else:
        rows = [(fault.part.value, fault.file, fault.problem, fault.repair) for fault in found]
        print_table(("part", "file", "problem", "repair"), rows)
        if repair:
            out.print(f"{len(found)} faults, {len(remaining)} remain", soft_wrap=True)
    if remaining:
        raise typer.Exit(1)


@app.command()
def rebuild(
    collection: Collection,
    descriptors: Annotated[
        str | None, typer.Option(help="Descriptors to index from now on, comma-separated. Default: the collection's.")
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="How factors become descriptors. Default: the collection's.")
    ] = None,
    whiteners: Whiteners = None,
    index_factory: Annotated[
        str | None,
        typer.Option(
            metavar="FACTORY",
            help="Index type: auto (exact for few vectors, compressed with re-ranking for many) or a faiss factory "
            "string: Flat (exact), SQ8 (a quarter of the bytes), HNSW32, IVF1024,Flat. Default: the collection's, "
            "auto for a new one.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Derive all vectors again from the stored factors and publish them. No image is read.

    A descriptor can be added if the shards hold what it needs: what and what-and-where always; fused, r-mac and the
    other baselines if the collection was made with them. For another network, index into a new collection. A collection
    of an older version is upgraded.

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
    with stoppable("the old generation is kept: run again"):
        manifest = derive(collection, settings)
    if as_json:
        print_json({"generation": manifest.number, "images": manifest.image_count, "descriptors": [*manifest.indexes]})
        return
    listed = ", ".join(manifest.indexes)
    out.print(f"{collection}: generation {manifest.number}, {manifest.image_count} images, {listed}", soft_wrap=True)


@app.command()
def compact(collection: Collection, as_json: AsJson = False) -> None:
    """Reclaim the space of removed images, and merge small files.

    Run it after many removals or additions. Servers keep answering. Afterwards `remove --undo` cannot restore images
    removed before: index their files again.
    """
    from whatwhere.indexer.maintenance.compact import compact as reclaim

    with stoppable("finished shards are kept: run again to continue"):
        done = reclaim(collection)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    saved = (done.before - done.after) / 1e6
    out.print(f"{collection}: generation {done.generation}, {saved:.1f} MB reclaimed", soft_wrap=True)


@app.command()
def adopt(collection: Collection) -> None:
    """Tell a collection with a PostgreSQL catalog or Milvus vectors that it was moved, or restored from a backup.

    These stores belong to one directory. A copy of the directory (`cp -r`) cannot be written: both would write to the
    same stores. A directory that was renamed is recognized. If a collection was moved to another machine or bucket, run
    this once on it: its former place cannot be written from then on. For a second collection use `whatwhere copy`.

    Example: `whatwhere adopt -c /mnt/restored/pictures.ww`
    """
    from whatwhere.indexer.maintenance.adopt import adopt as take_over

    take_over(collection)
    out.print(f"{collection}: owns its stores", soft_wrap=True)
