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
from indexer.files import write_text
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
    FUSED = "fused"
    MAC = "mac"
    R_MAC = "r-mac"
    CROW = "crow"
    GEM = "gem"


class Precision(StrEnum):
    """What the network computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Preset(StrEnum):
    """How descriptors are made of factors."""

    DEFAULT = "default"
    THESIS = "thesis"


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
Weights = Annotated[
    Path | None, typer.Option(help="A checkpoint of your own (.safetensors or torch) in place of the published one.")
]
CollectionWeights = Annotated[
    Path | None, typer.Option(help="The checkpoint that the collection was made with, where that is your own.")
]
Network = Annotated[str, typer.Option(metavar="NAME[:LAYER]", help="The network (see `whatwhere backbones`).")]
ComputedIn = Annotated[Precision, typer.Option(help="What the network computes in.")]
Rank = Annotated[int, typer.Option(min=1, max=64, help="Factors of each image.")]
Dimensions = Annotated[int, typer.Option(min=1, help="Length of a whitened vector.")]
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
    weights: CollectionWeights = None,
) -> None:
    """Serve a collection over gRPC until SIGTERM or Ctrl-C, then finish the requests in flight.

    The address is printed when the server answers. There is no authentication: keep it on loopback or behind a proxy.
    """
    from service import server

    logging.getLogger("service").setLevel(logging.INFO)
    settings = ServerSettings(collection, listen=listen, device=device.value, weights=weights)
    server.serve(settings, lambda address: print(f"serving {collection} on {address}", flush=True))


@app.command()
def search(
    image: Annotated[str, typer.Argument(metavar="IMAGE|images/ID", help="A picture, or a stored image's name.")],
    server: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Ask this server.")] = None,
    collection: Annotated[
        Path | None, typer.Option("--collection", "-c", help="Or search this collection without a server.")
    ] = None,
    weights: CollectionWeights = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="x1,y1,x2,y2",
            help="Search for what is in this box: fractions of the upright picture, or pixels with the suffix px.",
        ),
    ] = None,
    descriptor: Annotated[
        Descriptor | None, typer.Option(help="What to compare by; the best that the collection has.")
    ] = None,
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
            "descriptor": None if descriptor is None else descriptor.value,
            "page_size": top,
            "expansion_count": expand,
            "localize_count": localize,
            "exact": exact,
            "min_score": min_score,
        },
    )
    if (server is None) == (collection is None):
        raise typer.BadParameter("give either --server HOST:PORT or --collection DIR")
    if server is not None and weights is not None:
        raise typer.BadParameter("--weights goes with --collection: a server has its own")
    result = ask(question, server or collection or "", weights)
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
    descriptors: Annotated[
        str, typer.Option(help="For which descriptors, parted by commas.")
    ] = "what,what-and-where,fused",
    preset: Annotated[Preset, typer.Option(help="Of which preset (see `whatwhere index`).")] = Preset.DEFAULT,
    dimensions: Dimensions = 512,
    rank: Rank = 8,
    device: OnDevice = Device.AUTO,
    backbone: Network = "efficientnet-lite0",
    weights: Weights = None,
    precision: ComputedIn = Precision.FLOAT32,
) -> None:
    """Train whiteners on photographs, for `whatwhere index --whiteners`.

    Take an independent, varied set of hundreds or more. A whitener of a small or one-sided set (the collection itself,
    say) destroys retrieval.
    """
    from indexer.train import TrainingSettings, train_whiteners

    settings = TrainingSettings(
        descriptors=_names(descriptors),
        preset=preset.value,
        dimensions=dimensions,
        rank=rank,
        device=device.value,
        backbone=backbone,
        weights=weights,
        precision=precision.value,
    )
    with _stoppable("nothing was written"), progress.of_training(messages) as report:
        made = train_whiteners(paths, output, settings, report)
    for whitener in made.values():
        out.print(
            f"{whitener.key.descriptor}: {whitener.dimensions} dimensions from {whitener.trained_on}, "
            f"fingerprint {whitener.fingerprint[:12]}",
            soft_wrap=True,
        )


@app.command()
def evaluate(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="oxford5k, paris6k, roxford5k, rparis6k, voc2010 or folders."),
    ],
    images: Annotated[
        list[Path], typer.Option(help="The folder of the pictures; give it again to search further ones (distractors).")
    ],
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            help="Oxford, Paris: the folder of the text files; revisited: the gnd_*.pkl; voc2010: Annotations, where "
            "it is not beside the pictures; folders: a CSV of name,class[,use], where classes are not folders."
        ),
    ] = None,
    descriptors: Annotated[str, typer.Option(help="Which to score, parted by commas, or all.")] = "all",
    preset: Annotated[Preset, typer.Option(help="How descriptors are made of factors.")] = Preset.DEFAULT,
    backbone: Network = "efficientnet-lite0",
    weights: Weights = None,
    precision: ComputedIn = Precision.FLOAT32,
    rank: Rank = 8,
    dimensions: Dimensions = 512,
    whiten_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR|collection",
            help="Train the whiteners on these photographs, or on the searched ones themselves; else the ready-made.",
        ),
    ] = None,
    localisation: Annotated[bool, typer.Option(help="Also measure the boxes, where queries have them.")] = True,
    cache: Annotated[
        Path, typer.Option(help="Where features are kept for the next run.", envvar="WHATWHERE_CACHE")
    ] = Path("~/.cache/whatwhere/features"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the main numbers to this file, .png or .jpg.")] = None,
    device: OnDevice = Device.AUTO,
) -> None:
    """Score every descriptor on a data set by the protocol of its authors, and print the table.

    Features are kept: a second run, of other descriptors too, takes seconds; a run that was stopped continues. A part
    of a data set is scored as such and says so. Oxford is whitened on Paris and Paris on Oxford:

    Example: `whatwhere evaluate paris6k --images ~/paris --ground-truth ~/paris_gt --whiten-on ~/oxford`
    """
    from service.evaluation.datasets import load_benchmark
    from service.evaluation.report import check_picture_name, draw, to_json, to_markdown
    from service.evaluation.run import TABLE_ORDER, EvaluationSettings
    from service.evaluation.run import evaluate as run

    if picture is not None:
        check_picture_name(picture)
    folders = [folder for folder in whiten_on or [] if folder != "collection"]
    settings = EvaluationSettings(
        cache=cache.expanduser(),
        descriptors=TABLE_ORDER if descriptors == "all" else _names(descriptors),
        preset=preset.value,
        backbone=backbone,
        weights=weights,
        precision=precision.value,
        rank=rank,
        dimensions=dimensions,
        whiten_on=tuple(map(Path, folders)),
        whiten_on_collection="collection" in (whiten_on or []),
        localisation=localisation,
        device=device.value,
    )
    benchmark = load_benchmark(name, images, ground_truth)
    with _stoppable("features are kept: run again to continue"), progress.of_evaluation(messages) as report:
        found = run(benchmark, settings, report)
    text = to_markdown(found)
    print(text, end="")
    if json_file is not None:
        write_text(json_file, json.dumps(to_json(found), indent=2) + "\n")
    if markdown is not None:
        write_text(markdown, text)
    if picture is not None:
        draw(found, picture)


@app.command()
def backbones(as_json: AsJson = False) -> None:
    """List the networks for `index --backbone`: what they give, what they cost, whether their weights are here."""
    from indexer.backbones import list_backbones

    listed = list_backbones()
    if as_json:
        _print_json([dataclasses.asdict(entry) for entry in listed])
        return
    table = _table("name", "layer", "channels", "stride", "GMACs", "weights")
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
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(","))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


if __name__ == "__main__":
    main()
