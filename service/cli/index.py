"""Index photographs: `whatwhere index`."""

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
from whatwhere.service.cli.places import place_of

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
            min=1,
            max=MAX_RANK,
            help=f"Rank of NMF: factors per image. Default: the collection's, {DEFAULT_RANK} for a new one.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:LAYER]",
            help=f"Network (see `whatwhere backbones`). Default: the collection's, {DEFAULT_BACKBONE} for a new one.",
        ),
    ] = None,
    weights: Weights = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help=f"Precision of the network. Default: the collection's, {DEFAULT_PRECISION} for a new one."),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(help="How factors become descriptors: `default` measured best, `thesis` is the original method."),
    ] = None,
    descriptors: Annotated[
        str | None,
        typer.Option(
            help=f"Descriptors to index, comma-separated: {', '.join(DESCRIPTORS)}. Default: the collection's, "
            f"'{','.join(DEFAULT_DESCRIPTORS)}' for a new one."
        ),
    ] = None,
    whiteners: Annotated[
        Path | None, typer.Option(help="Folder of whiteners (see `whatwhere whiten`). Default: the ready-made ones.")
    ] = None,
    device: OnDevice = Device.AUTO,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = DEFAULT_BATCH_SIZE,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads that read and decode. Default: one per core. For remote images use more, such as 32."
        ),
    ] = None,
    max_requests_per_second: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Limit of requests to object stores and the web, over all threads. Default: none."
        ),
    ] = None,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Read every file, even if its size and time are unchanged.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retry images that failed before.")] = False,
    metadata: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Table of metadata: CSV or JSON lines with a column `path`."),
    ] = None,
    exif: Annotated[
        bool,
        typer.Option("--exif", help="Store the time and the camera; with --checksum also for images already indexed."),
    ] = False,
    exif_gps: Annotated[bool, typer.Option("--exif-gps", help="Store these and the GPS position.")] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Forget files that are gone from the given folders, folders that are gone themselves, and given URIs "
            "that answer 404.",
        ),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray|ray://ADDRESS",
            help="Where images are described: this process, Ray on this machine, or a cluster (ray://auto, ray://HOST:6379).",
        ),
    ] = "local",
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Number of Ray workers. Default: as many as fit.")
    ] = None,
    ray_cpus: Annotated[int, typer.Option(min=1, help="Cores, and threads, per worker.")] = 1,
    ray_gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs, or a share of one, per worker. Default: 1 with --device cuda.")
    ] = None,
    catalog: Catalog = None,
    vectors: Vectors = None,
    as_json: AsJson = False,
) -> None:
    """Index photographs into a collection. Run it again to add new and changed images.

    An unreadable image is recorded with its reason (`whatwhere images --state failed`), and the run goes on. You can
    stop a run (Ctrl-C) or kill it at any time: the next run continues. A sidecar file photo.jpg.json holds metadata of
    photo.jpg as one JSON object. Credentials for object stores are read from where their own tools read them
    (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ~/.aws; ~/.netrc for the web).

    If a collection outgrows one machine, keep its catalog in PostgreSQL (--catalog), its vectors in Milvus (--vectors)
    and its files in an object store: `--collection s3://BUCKET/NAME`. Passwords: PGPASSWORD or ~/.pgpass, MILVUS_TOKEN.

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
    with stoppable("finished images are kept: run again to continue"), progress.of_indexing(messages) as report:
        summary = index_paths(paths, collection, settings, report)
    if as_json:
        values = dataclasses.asdict(summary)
        print_json(values.pop("progress") | {name: value for name, value in values.items() if name != "published"})
        return
    _print_summary(summary, collection)


def _print_summary(summary: "RunSummary", collection: str) -> None:
    """Print the summary of a run; leave out what did not happen."""
    done = summary.progress
    out.print(
        f"described {done.described}, failed {done.failed}, duplicates {done.duplicates}, "
        f"unchanged {done.unchanged}, not images {summary.ignored}"
    )
    if summary.metadata_changed or summary.unmatched_rows or summary.unreadable_sidecars:
        out.print(
            f"metadata changed {summary.metadata_changed}, rows without a file {summary.unmatched_rows}, "
            f"unreadable sidecars {summary.unreadable_sidecars}"
        )
    _print_some(summary.unlisted, f"folders that cannot be listed {len(summary.unlisted)}")
    _print_some(
        summary.vanished,
        f"vanished {len(summary.vanished)}, " + ("removed" if summary.pruned else "kept: --prune removes them"),
    )
    _print_some(
        summary.moved,
        f"moved {len(summary.moved)}, their old places are kept: index --prune with the old folder removes them",
    )
    out.print(f"{collection}: generation {summary.generation}, {summary.images} images", soft_wrap=True)
    if done.failed:
        out.print(f"reasons: whatwhere images --collection {collection} --state failed", soft_wrap=True)


def _print_some(uris: Sequence[str], heading: str) -> None:
    """Print a heading and the first URIs, or nothing if there are none."""
    if uris:
        out.print(heading)
    for uri in uris[:SHOWN]:
        out.print(f"  {place_of(uri)}", soft_wrap=True)
    if len(uris) > SHOWN:
        out.print(f"  ... and {len(uris) - SHOWN} more: --json lists all")
