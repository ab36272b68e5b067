"""`whatwhere index`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE, DEFAULT_PRECISION
from whatwhere.indexer.features.names import DEFAULT_DESCRIPTORS, DEFAULT_RANK, DESCRIPTORS, MAX_RANK
from whatwhere.indexer.pipeline.defaults import DEFAULT_BATCH_SIZE
from whatwhere.service.cli import progress
from whatwhere.service.cli.app import app, messages, out, print_json, stoppable
from whatwhere.service.cli.options import (
    AsJson,
    Catalog,
    Collection,
    Device,
    OnDevice,
    Paths,
    Precision,
    Preset,
    Vectors,
    Weights,
    names,
)

if TYPE_CHECKING:
    from whatwhere.indexer.pipeline.settings import RunSummary

SHOWN = 10


@app.command()
def index(
    paths: Paths,
    collection: Collection,
    rank: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_RANK, help=f"Factors of each image; the collection's own, {DEFAULT_RANK} for a new one."
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:LAYER]",
            help=f"The network (see `whatwhere backbones`); the collection's own, {DEFAULT_BACKBONE} for a new one.",
        ),
    ] = None,
    weights: Weights = None,
    precision: Annotated[
        Precision | None, typer.Option(help=f"The network's; the collection's own, {DEFAULT_PRECISION} for a new one.")
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="How descriptors are made of factors: as measured best, or as the thesis has it; the collection's own."
        ),
    ] = None,
    descriptors: Annotated[
        str | None,
        typer.Option(
            help=f"What to index by, parted by commas: {', '.join(DESCRIPTORS)}; the collection's own, "
            f"'{','.join(DEFAULT_DESCRIPTORS)}' for a new one."
        ),
    ] = None,
    whiteners: Annotated[
        Path | None, typer.Option(help="A folder of whiteners (see `whatwhere whiten`) in place of the ready-made.")
    ] = None,
    device: OnDevice = Device.AUTO,
    batch_size: Annotated[int, typer.Option(min=1, help="Images described together.")] = DEFAULT_BATCH_SIZE,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that read and decode; one a core. For what is far away take more, say 32."),
    ] = None,
    max_requests_per_second: Annotated[
        float | None, typer.Option(metavar="RATE", help="Of object stores and the web, over all threads; no limit.")
    ] = None,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Read every file, also those whose size and time are unchanged.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    metadata: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What is known of the photographs: CSV or JSON lines with a column `path`."),
    ] = None,
    exif: Annotated[
        bool, typer.Option("--exif", help="Take along time and camera; with --checksum also of what is indexed.")
    ] = False,
    exif_gps: Annotated[bool, typer.Option("--exif-gps", help="Take along these and the position.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Forget what is gone from the given folders, and named URIs that are (404).")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray|ray://ADDRESS",
            help="What describes: this process, a Ray started on this machine, or a cluster (ray://auto, ray://HOST:6379).",
        ),
    ] = "local",
    ray_workers: Annotated[int | None, typer.Option(min=1, help="Ray's workers; as many as there is room for.")] = None,
    ray_cpus: Annotated[int, typer.Option(min=1, help="Cores, and so threads, of each worker.")] = 1,
    ray_gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs, or a share of one, of each worker; 1 with --device cuda.")
    ] = None,
    catalog: Catalog = None,
    vectors: Vectors = None,
    as_json: AsJson = False,
) -> None:
    """Index photographs into a collection; run it again to add what is new or changed.

    An image that cannot be read is recorded with its reason (`whatwhere images --state failed`) and stops nothing.
    The run can be stopped (Ctrl-C) or killed at any time: run again, it continues. What photo.jpg.json says, one JSON
    object, is kept as metadata of photo.jpg beside it. Credentials for object stores are found where their own tools
    find them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ~/.aws; ~/.netrc for the web).

    A collection that outgrows one machine has its catalogue and vectors on servers (--catalog, --vectors) and itself in
    an object store: `--collection s3://BUCKET/NAME`. Passwords: PGPASSWORD or ~/.pgpass, MILVUS_TOKEN.

    Example: `whatwhere index ~/Pictures s3://bucket/photographs/ more.csv --collection ~/pictures.ww`
    """
    from whatwhere.indexer.collection.stores import Stores
    from whatwhere.indexer.pipeline.ray.settings import choose_cluster
    from whatwhere.indexer.pipeline.run import index_paths
    from whatwhere.indexer.pipeline.settings import IndexSettings

    settings = IndexSettings(
        rank=rank,
        backbone=backbone,
        weights=weights,
        precision=None if precision is None else precision.value,
        preset=None if preset is None else preset.value,
        descriptors=None if descriptors is None else names(descriptors),
        whiteners=whiteners,
        device=device.value,
        batch_size=batch_size,
        workers=workers,
        checksum=checksum,
        retry_failed=retry_failed,
        metadata=metadata,
        exif=exif,
        exif_gps=exif_gps,
        prune=prune,
        max_requests_per_second=max_requests_per_second,
        stores=Stores(catalog, vectors),
        cluster=choose_cluster(engine, ray_workers, ray_cpus, ray_gpus),
    )
    with stoppable("what was finished is kept: run again to continue"), progress.of_indexing(messages) as report:
        summary = index_paths(paths, collection, settings, report)
    if as_json:
        values = dataclasses.asdict(summary)
        print_json(values.pop("progress") | {name: value for name, value in values.items() if name != "published"})
        return
    _print_summary(summary, collection)


def _print_summary(summary: "RunSummary", collection: str) -> None:
    """Print what people read: what there is nothing to say of is left out."""
    done = summary.progress
    out.print(
        f"described {done.described}, failed {done.failed}, duplicates {done.duplicates}, "
        f"unchanged {done.unchanged}, not images {summary.ignored}"
    )
    if summary.metadata_changed or summary.unmatched_rows or summary.torn_sidecars:
        out.print(
            f"metadata changed {summary.metadata_changed}, rows that name no file {summary.unmatched_rows}, "
            f"torn sidecars {summary.torn_sidecars}"
        )
    _print_some(summary.unlisted, f"folders that cannot be listed {len(summary.unlisted)}")
    _print_some(
        summary.vanished,
        f"vanished {len(summary.vanished)}, " + ("forgotten" if summary.pruned else "kept: --prune forgets them"),
    )
    out.print(f"{collection}: generation {summary.generation}, {summary.images} images", soft_wrap=True)
    if done.failed:
        out.print(f"reasons: whatwhere images --collection {collection} --state failed", soft_wrap=True)


def _print_some(uris: Sequence[str], heading: str) -> None:
    """Print a heading and the first of the URIs under it, nothing where there are none."""
    if uris:
        out.print(heading)
    for uri in uris[:SHOWN]:
        out.print(f"  {uri}", soft_wrap=True)
    if len(uris) > SHOWN:
        out.print(f"  ... and {len(uris) - SHOWN} more: --json names all")
