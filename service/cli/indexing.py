"""`whatwhere index`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from service import progress
from service.cli.terminal import (
    AsJson,
    Collection,
    Device,
    OnDevice,
    Paths,
    Precision,
    Preset,
    Weights,
    app,
    messages,
    names,
    out,
    print_json,
    stoppable,
)


@app.command()
def index(
    paths: Paths,
    collection: Collection,
    rank: Annotated[
        int | None, typer.Option(min=1, max=64, help="Factors of each image; the collection's own, 8 for a new one.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:LAYER]",
            help="The network (see `whatwhere backbones`); the collection's own, efficientnet-lite0 for a new one.",
        ),
    ] = None,
    weights: Weights = None,
    precision: Annotated[
        Precision | None, typer.Option(help="The network's; the collection's own, float32 for a new one.")
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
            help="What to index by, parted by commas: what, what-and-where, fused, mac, r-mac, crow, gem; the "
            "collection's own, 'what,what-and-where,fused' for a new one."
        ),
    ] = None,
    whiteners: Annotated[
        Path | None, typer.Option(help="A folder of whiteners (see `whatwhere whiten`) in place of the ready-made.")
    ] = None,
    device: OnDevice = Device.AUTO,
    batch_size: Annotated[int, typer.Option(min=1, help="Images described together.")] = 8,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding threads; one a core.")] = None,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Read every file, also those whose size and time are unchanged.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    as_json: AsJson = False,
) -> None:
    """Index photographs into a collection; run it again to add what is new or changed.

    An image that cannot be read is recorded with its reason (`whatwhere images --state failed`) and stops nothing.
    The run can be stopped (Ctrl-C) or killed at any time: run again, it continues.

    Example: `whatwhere index ~/Pictures --collection ~/pictures.ww`
    """
    from indexer.pipeline import IndexSettings, index_paths

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
    )
    with stoppable("what was finished is kept: run again to continue"), progress.of_indexing(messages) as report:
        summary = index_paths(paths, collection, settings, report)
    counts = dataclasses.asdict(summary.progress)
    if as_json:
        print_json(counts | {name: getattr(summary, name) for name in ("ignored", "images", "generation")})
        return
    out.print(
        f"described {counts['described']}, failed {counts['failed']}, duplicates {counts['duplicates']}, "
        f"unchanged {counts['unchanged']}, not images {summary.ignored}"
    )
    out.print(f"{collection}: generation {summary.generation}, {summary.images} images", soft_wrap=True)
    if summary.progress.failed:
        out.print(f"reasons: whatwhere images --collection {collection} --state failed", soft_wrap=True)
