"""Evaluate retrieval: `whatwhere evaluate`."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.features.names import DEFAULT_DIMENSIONS, DEFAULT_RANK
from whatwhere.indexer.storage.outputs import Output
from whatwhere.indexer.storage.user_folders import cache_folder
from whatwhere.service.cli import progress
from whatwhere.service.cli.app import app, messages, stoppable
from whatwhere.service.cli.options import (
    ComputedIn,
    Device,
    Dimensions,
    Network,
    OnDevice,
    Overwrite,
    Precision,
    Preset,
    Rank,
    Weights,
    names,
)

_FEATURES = "WHATWHERE_FEATURES"


@app.command()
def evaluate(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Data set: oxford5k, paris6k, roxford5k, rparis6k, voc2010 or folders."),
    ],
    images: Annotated[list[Path], typer.Option(help="Folder of images; may be repeated to add distractors.")],
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            help="Oxford, Paris: folder of text files; revisited: gnd_*.pkl; voc2010: Annotations, if not beside the "
            "images; folders: CSV of name,class[,use], if classes are not folders."
        ),
    ] = None,
    descriptors: Annotated[str, typer.Option(help="Descriptors to score, comma-separated, or all.")] = "all",
    preset: Annotated[Preset, typer.Option(help="How factors become descriptors.")] = Preset.DEFAULT,
    backbone: Network = DEFAULT_BACKBONE,
    weights: Weights = None,
    precision: ComputedIn = Precision.FLOAT32,
    rank: Rank = DEFAULT_RANK,
    dimensions: Dimensions = DEFAULT_DIMENSIONS,
    whiten_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR|collection",
            help="Train whiteners on these photographs, or on the searched collection. Default: the ready-made ones.",
        ),
    ] = None,
    localization: Annotated[bool, typer.Option(help="Also measure boxes, if the queries have them.")] = True,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of cached features.",
            envvar=_FEATURES,
            show_default="~/.cache/whatwhere/features",
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file (JSON).")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report to this file (Markdown).")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the main numbers to this file (.png or .jpg).")] = None,
    overwrite: Overwrite = False,
    device: OnDevice = Device.AUTO,
) -> None:
    """Score descriptors on a data set by its authors' protocol, and print a table.

    Features are cached: a second run, also with other descriptors, takes seconds, and a stopped run continues. If
    images of a data set are missing, the rest is scored and the report says so. Whiten Oxford on Paris and the reverse:

    Example: `whatwhere evaluate paris6k --images ~/paris --ground-truth ~/paris_gt --whiten-on ~/oxford`
    """
    from whatwhere.service.evaluation.retrieval.datasets import load_benchmark
    from whatwhere.service.evaluation.retrieval.report import check_picture_name, draw, format_of, to_json, to_markdown
    from whatwhere.service.evaluation.retrieval.run import TABLE_ORDER, EvaluationSettings
    from whatwhere.service.evaluation.retrieval.run import evaluate as run

    if picture is not None:
        check_picture_name(picture)
    folders = [Path(folder) for folder in whiten_on or [] if folder != "collection"]
    written = {"json": json_file, "markdown": markdown, "picture": picture}
    outputs = {option: Output(path, overwrite, option) for option, path in written.items() if path is not None}
    if len({output.path.resolve() for output in outputs.values()}) < len(outputs):
        raise typer.BadParameter("--json, --markdown and --picture must be given different files")
    for output in outputs.values():
        output.check()
        output.spare(path for path in (*images, *folders, ground_truth, weights) if path is not None)
    settings = EvaluationSettings(
        cache=_feature_folder(cache),
        descriptors=TABLE_ORDER if descriptors == "all" else names(descriptors),
        preset=preset.value,
        backbone=backbone,
        weights=weights,
        precision=precision.value,
        rank=rank,
        dimensions=dimensions,
        whiten_on=tuple(folders),
        whiten_on_collection="collection" in (whiten_on or []),
        localization=localization,
        device=device.value,
    )
    benchmark = load_benchmark(name, images, ground_truth)
    with stoppable("features are cached: run again to continue"), progress.of_stages(messages) as report:
        found = run(benchmark, settings, report)
    text = to_markdown(found)
    print(text, end="")
    writers = {
        "json": lambda path: path.write_text(json.dumps(to_json(found), indent=2) + "\n", encoding="utf-8"),
        "markdown": lambda path: path.write_text(text, encoding="utf-8"),
        "picture": lambda path: draw(found).save(path, format=format_of(outputs["picture"].path)),
    }
    for option, output in outputs.items():
        output.write(writers[option])


def _feature_folder(given: Path | None) -> Path:
    """Return the folder of cached features; InvalidRequest if the user has no home and names none."""
    if given is not None:
        return Path(os.path.expanduser(given))
    caches = cache_folder()
    if caches is None:
        raise InvalidRequest(f"this user has no home for cached features: give --cache DIR, or set {_FEATURES}")
    return caches / "whatwhere" / "features"
