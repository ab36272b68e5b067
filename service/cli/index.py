"""Index photographs: `whatwhere index`."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE, DEFAULT_PRECISION
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.features.names import DEFAULT_DESCRIPTORS, DEFAULT_RANK, DESCRIPTORS, MAX_RANK
from whatwhere.indexer.images.limits import MEGAPIXEL, MIB, ImageLimits
from whatwhere.indexer.pipeline.defaults import DEFAULT_BATCH_SIZE
from whatwhere.indexer.sources.kinds import described
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
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Number of cores to use in this process. Default: all available."),
    ] = None,
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
        typer.Option(
            metavar="FILE",
            help="Table of metadata with a column `path`: CSV (comma, semicolon or tab) or JSON lines.",
        ),
    ] = None,
    exif: Annotated[
        bool,
        typer.Option("--exif", help="Store the time and the camera; with --checksum also for images already indexed."),
    ] = False,
    exif_gps: Annotated[
        bool, typer.Option("--exif-gps", help="Store these and the GPS position, also from Takeout and XMP sidecars.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Leave out files and folders of this gitignore pattern, such as 'drafts/' or '*.tif'; repeatable.",
        ),
    ] = None,
    include_hidden: Annotated[
        bool, typer.Option("--include-hidden", help="Take hidden files and folders (names that begin with a dot).")
    ] = False,
    max_megapixels: Annotated[
        int, typer.Option(min=1, help="Maximum size of an image, in millions of pixels.")
    ] = ImageLimits.max_pixels // MEGAPIXEL,
    max_file_mib: Annotated[
        int, typer.Option(min=1, help="Maximum size of an image file, in MiB.")
    ] = ImageLimits.max_bytes // MIB,
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

    An unreadable image is recorded with its reason (`whatwhere images --state failed`), and the run goes on. Other
    files are passed over and counted by kind (`whatwhere images --state skipped`). You can stop a run (Ctrl-C) or kill
    it at any time: the next run continues. Sidecar files are metadata of photo.jpg: photo.jpg.json (one JSON object, or
    Google Takeout's), photo.jpg.xmp and photo.xmp. Credentials for object stores are read from where their own tools
    read them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ~/.aws; ~/.netrc for the web).

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
        threads=threads,
        workers=workers,
        checksum=checksum,
        retry_failed=retry_failed,
        limits=ImageLimits(max_file_mib * MIB, max_megapixels * MEGAPIXEL),
        metadata=metadata,
        exif=exif,
        exif_gps=exif_gps,
        exclude=tuple(exclude or ()),
        include_hidden=include_hidden,
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
    else:
        _print_summary(summary, collection)
    if summary.skipped and not summary.progress.total and not summary.images:
        raise InvalidRequest(_nothing_found(summary, collection), field="paths")


def _nothing_found(summary: "RunSummary", collection: str) -> str:
    """Return the error of a run that found no image, for a collection that has none."""
    return (
        f"no image found: passed over {described(summary.skipped)}: give a folder with images in a format that "
        f"is read, or see the reasons: whatwhere images --collection {quote(collection)} --state skipped"
    )


def _print_summary(summary: "RunSummary", collection: str) -> None:
    """Print the summary of a run; leave out what did not happen."""
    done = summary.progress
    truncated = f" ({summary.truncated} truncated)" if summary.truncated else ""
    by_reason = ", ".join(f"{count} {_spoken(reason)}" for reason, count in summary.failures.items())
    reasons = f" ({by_reason})" if len(summary.failures) > 1 else ""
    out.print(
        f"described {done.described}{truncated}, failed {done.failed}{reasons}, "
        f"duplicates {done.duplicates}, unchanged {done.unchanged}",
        soft_wrap=True,
    )
    if summary.skipped:
        out.print(f"passed over: {described(summary.skipped)}", soft_wrap=True)
    if summary.metadata_changed or summary.unreadable_sidecars:
        out.print(f"metadata changed {summary.metadata_changed}, unreadable sidecars {summary.unreadable_sidecars}")
    _print_some(summary.unmatched, f"rows of the table without a file {summary.unmatched_rows}", show=str)
    _print_some(summary.unlisted, f"folders that cannot be listed {len(summary.unlisted)}")
    _print_some(
        summary.vanished,
        f"vanished {len(summary.vanished)}, " + ("removed" if summary.pruned else "kept: --prune removes them"),
    )
    _print_some(
        summary.moved,
        f"moved {len(summary.moved)}, their old places are kept: index --prune with the old folder removes them",
    )
    _print_some(
        summary.left_out,
        f"left out now, but indexed before {len(summary.left_out)}, kept: `whatwhere remove` removes them",
    )
    failed = f", {summary.failed_images} failed" if summary.failed_images else ""
    out.print(f"{collection}: generation {summary.generation}, {summary.images} images{failed}", soft_wrap=True)
    for found, state in ((done.failed, "failed"), (summary.skipped, "skipped")):
        if found:
            out.print(f"reasons: whatwhere images --collection {quote(collection)} --state {state}", soft_wrap=True)


def _spoken(reason: str) -> str:
    return reason.lower().replace("_", " ")


def _print_some(names: Sequence[str], heading: str, show: Callable[[str], str] = place_of) -> None:
    """Print a heading and the first names or URIs, as `show` writes them, or nothing if there are none."""
    if names:
        out.print(heading, soft_wrap=True)
    for name in names[:SHOWN]:
        out.print(f"  {show(name)}", soft_wrap=True)
    if len(names) > SHOWN:
        out.print(f"  ... and {len(names) - SHOWN} more: --json lists all")
