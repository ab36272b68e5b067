"""The command `whatwhere`: each sub-command reads its options and calls one function.

Exit codes: 0 done, 1 a named error, 2 wrong usage, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

import dataclasses
import importlib.metadata
import json
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from indexer.errors import WhatwhereError
from service import progress
from service.results import SearchResult
from service.settings import ServerSettings

app = typer.Typer(
    name="whatwhere",
    help="Content-based image search that answers what matched and where.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
# No markup: names of files are printed as they are, brackets and all.
out = Console(markup=False, highlight=False)
messages = Console(markup=False, highlight=False, stderr=True)


class Device(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Descriptor(StrEnum):
    """What pictures are compared by."""

    WHAT = "what"
    WHAT_AND_WHERE = "what-and-where"
    MAC = "mac"
    R_MAC = "r-mac"
    CROW = "crow"
    GEM = "gem"


class State(StrEnum):
    """What became of an image."""

    INDEXED = "indexed"
    FAILED = "failed"
    REMOVED = "removed"


Collection = Annotated[
    Path, typer.Option("--collection", "-c", help="The collection's directory.", envvar="WHATWHERE_COLLECTION")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for programs.")]
Paths = Annotated[list[Path], typer.Argument(help="Image files, and folders (searched through all their folders).")]
OnDevice = Annotated[Device, typer.Option(help="Where the network runs; auto takes CUDA where there is one.")]


def main() -> None:
    """Run the command line."""
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s", level=logging.WARNING)
    try:
        app(standalone_mode=True)
    except (WhatwhereError, OSError) as error:  # OSError: disk full, read-only, permission; its sentence names the file
        messages.print(f"error: {error}", style="red", soft_wrap=True)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("whatwhere"))
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, on standard error.")] = False,
) -> None:
    if verbose:
        for name in ("indexer", "service"):
            logging.getLogger(name).setLevel(logging.INFO)


@app.command()
def index(
    paths: Paths,
    collection: Collection,
    rank: Annotated[
        int | None, typer.Option(min=1, max=64, help="Factors of each image; the collection's own, 8 for a new one.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="The network; the collection's own, efficientnet-lite0 for a new one.")
    ] = None,
    descriptors: Annotated[
        str | None,
        typer.Option(
            help="What to index by, parted by commas: what, what-and-where, mac, r-mac, crow, gem; the collection's "
            "own, 'what,what-and-where' for a new one."
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
        descriptors=None if descriptors is None else _names(descriptors),
        whiteners=whiteners,
        device=device.value,
        batch_size=batch_size,
        workers=workers,
        checksum=checksum,
        retry_failed=retry_failed,
    )
    with _stoppable("what was finished is kept: run again to continue"), progress.of_indexing(messages) as report:
        summary = index_paths(paths, collection, settings, report)
    counts = dataclasses.asdict(summary.progress)
    if as_json:
        _print_json(counts | {name: getattr(summary, name) for name in ("ignored", "images", "generation")})
        return
    out.print(
        f"described {counts['described']}, failed {counts['failed']}, duplicates {counts['duplicates']}, "
        f"unchanged {counts['unchanged']}, not images {summary.ignored}"
    )
    out.print(f"{collection}: generation {summary.generation}, {summary.images} images", soft_wrap=True)
    if summary.progress.failed:
        out.print(f"reasons: whatwhere images --collection {collection} --state failed", soft_wrap=True)


@app.command()
def info(collection: Collection, as_json: AsJson = False) -> None:
    """Say what a collection holds: counts, recipe, indexes, bytes on disk."""
    from indexer.inspection import inspect_collection

    found = inspect_collection(collection)
    if as_json:
        _print_json(found)
        return
    table = _table("", "")
    for name, value in found.items():
        text = "\n".join(f"{key}: {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), text)
    out.print(table)


@app.command()
def images(
    collection: Collection,
    state: Annotated[State | None, typer.Option(help="Only images in this state.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the images of a collection, the failed ones with their reasons."""
    from indexer.catalog import Catalog
    from indexer.collection import Layout, Recipe

    layout = Layout(collection)
    Recipe.load(layout)
    with Catalog.open(layout.catalog) as catalog:
        records = catalog.images(state=state.value if state else None, limit=limit)
    if as_json:
        _print_json(
            [
                {"name": f"images/{record.id}", "uri": next(iter(record.uris), "")} | dataclasses.asdict(record)
                for record in records
            ]
        )
        return
    table = _table("name", "state", "size", "uri", "reason")
    for record in records:
        size = f"{record.width} x {record.height}" if record.width else ""
        uris = "\n".join(record.uris)
        table.add_row(f"images/{record.id}", record.state, size, uris, record.failure_message or "")
    out.print(table)


@app.command()
def serve(
    collection: Collection,
    listen: Annotated[str, typer.Option(help="Address and port; port 0 takes a free one.")] = "127.0.0.1:50051",
    device: OnDevice = Device.AUTO,
) -> None:
    """Serve a collection over gRPC until SIGTERM or Ctrl-C, then finish the requests in flight.

    The address is printed when the server answers. There is no authentication: keep it on loopback or behind a proxy.
    """
    from service import server

    logging.getLogger("service").setLevel(logging.INFO)
    settings = ServerSettings(collection, listen=listen, device=device.value)
    server.serve(settings, lambda address: print(f"serving {collection} on {address}", flush=True))


@app.command()
def search(
    image: Annotated[str, typer.Argument(metavar="IMAGE|images/ID", help="A picture, or a stored image's name.")],
    server: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Ask this server.")] = None,
    collection: Annotated[
        Path | None, typer.Option("--collection", "-c", help="Or search this collection without a server.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="x1,y1,x2,y2",
            help="Search for what is in this box: fractions of the upright picture, or pixels with the suffix px.",
        ),
    ] = None,
    descriptor: Annotated[Descriptor, typer.Option(help="What to compare by.")] = Descriptor.WHAT_AND_WHERE,
    top: Annotated[int, typer.Option(min=1, max=100, help="Results.")] = 10,
    expand: Annotated[int, typer.Option(min=0, max=20, help="Query expansion by so many first results.")] = 0,
    localize: Annotated[int, typer.Option(min=0, max=20, help="Draw the matching box on so many results.")] = 0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Localise by new forward passes; slower, needs the results' files.")
    ] = False,
    min_score: Annotated[float | None, typer.Option(min=-1, max=1, help="Leave out results below.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw query and results, with their boxes, to this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the images that show what a picture, or a box drawn on it, shows.

    Example: `whatwhere search bike.jpg -c ~/pictures.ww --region 0.2,0.3,0.7,0.9 --localize 10 --picture answer.png`
    """
    from service.asking import Question, ask

    question = Question(
        image=image,
        region=region,
        picture=picture,
        options={
            "descriptor": descriptor.value,
            "page_size": top,
            "expansion_count": expand,
            "localize_count": localize,
            "exact": exact,
            "min_score": min_score,
        },
    )
    if (server is None) == (collection is None):
        raise typer.BadParameter("give either --server HOST:PORT or --collection DIR")
    result = ask(question, server or collection or "")
    if as_json:
        _print_json(_answer(result))
        return
    _print_answer(result)
    if picture is not None:
        out.print(f"picture: {picture}", soft_wrap=True)


def _answer(result: SearchResult) -> dict[str, Any]:
    """Return what programs read."""
    hits = [
        {"rank": rank, "image": hit.image.name, "uri": hit.image.uri, "score": hit.score, "box": hit.box}
        for rank, hit in enumerate(result.hits, start=1)
    ]
    return {"region_fallback": result.region_fallback, "kept_factor_count": result.kept_factor_count, "hits": hits}


def _print_answer(result: SearchResult) -> None:
    """Print what people read."""
    if result.region_fallback:
        messages.print("no factor lies three quarters inside the region: the nearest one was used", style="yellow")
    table = _table("rank", "score", "image", "uri", "box")
    for rank, hit in enumerate(result.hits, start=1):
        box = "" if hit.box is None else ",".join(f"{side:.3f}" for side in hit.box)
        table.add_row(str(rank), f"{hit.score:.3f}", hit.image.name, hit.image.uri, box)
    out.print(table)


@app.command()
def whiten(
    paths: Paths,
    output: Annotated[Path, typer.Option(help="The folder to write the whiteners into.")],
    descriptors: Annotated[str, typer.Option(help="For which descriptors, parted by commas.")] = "what,what-and-where",
    dimensions: Annotated[int, typer.Option(min=1, help="Length of a whitened vector.")] = 512,
    rank: Annotated[int, typer.Option(min=1, max=64, help="Factors of each image.")] = 8,
    device: OnDevice = Device.AUTO,
) -> None:
    """Train whiteners on photographs, for `whatwhere index --whiteners`.

    Take an independent, varied set of hundreds or more. A whitener of a small or one-sided set (the collection itself,
    say) destroys retrieval.
    """
    from indexer.train import TrainingSettings, train_whiteners

    settings = TrainingSettings(_names(descriptors), dimensions, rank, device.value)
    with _stoppable("nothing was written"), progress.of_training(messages) as report:
        made = train_whiteners(paths, output, settings, report)
    for whitener in made.values():
        out.print(
            f"{whitener.key.descriptor}: {whitener.dimensions} dimensions from {whitener.trained_on}, "
            f"fingerprint {whitener.fingerprint[:12]}",
            soft_wrap=True,
        )


@contextmanager
def _stoppable(what_is_kept: str) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the work with a sentence and the exit code of the signal."""

    def on_terminate(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        messages.print(f"stopped; {what_is_kept}")
        raise SystemExit(128 + signal.SIGINT if isinstance(stop, KeyboardInterrupt) else stop.code) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _table(*columns: str) -> Table:
    """Return a table whose cells are never cut: what is shown can be copied."""
    table = Table(box=None)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(","))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


if __name__ == "__main__":
    main()
