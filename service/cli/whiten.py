"""Train whiteners: `whatwhere whiten`."""

from pathlib import Path
from typing import Annotated

import typer

from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE
from whatwhere.indexer.features.names import DEFAULT_DESCRIPTORS, DEFAULT_DIMENSIONS, DEFAULT_RANK
from whatwhere.service.cli import progress
from whatwhere.service.cli.app import app, messages, out, stoppable
from whatwhere.service.cli.options import (
    ComputedIn,
    Device,
    Dimensions,
    Network,
    OnDevice,
    Paths,
    Precision,
    Preset,
    Rank,
    Weights,
    names,
)


@app.command()
def whiten(
    paths: Paths,
    output: Annotated[Path, typer.Option(help="Folder to write the whiteners to.")],
    descriptors: Annotated[str, typer.Option(help="Descriptors to train for, comma-separated.")] = ",".join(
        DEFAULT_DESCRIPTORS
    ),
    preset: Annotated[Preset, typer.Option(help="Preset of the descriptors (see `whatwhere index`).")] = Preset.DEFAULT,
    dimensions: Dimensions = DEFAULT_DIMENSIONS,
    rank: Rank = DEFAULT_RANK,
    device: OnDevice = Device.AUTO,
    backbone: Network = DEFAULT_BACKBONE,
    weights: Weights = None,
    precision: ComputedIn = Precision.FLOAT32,
) -> None:
    """Train whiteners on photographs, for `whatwhere index --whiteners`.

    Use an independent, varied set of several hundred photographs or more. A whitener trained on a small or uniform set,
    such as the collection itself, can destroy retrieval.

    Example: `whatwhere whiten ~/varied-photographs --output my-whiteners --backbone resnet50`
    """
    from whatwhere.indexer.pipeline.train_whiteners import TrainingSettings, train_whiteners

    settings = TrainingSettings(
        descriptors=names(descriptors),
        preset=preset.value,
        dimensions=dimensions,
        rank=rank,
        device=device.value,
        backbone=backbone,
        weights=weights,
        precision=precision.value,
    )
    with stoppable("nothing was written"), progress.of_training(messages) as report:
        made = train_whiteners(paths, output, settings, report)
    for whitener in made.values():
        out.print(
            f"{whitener.key.descriptor}: {whitener.dimensions} dimensions from {whitener.trained_on}, "
            f"fingerprint {whitener.fingerprint[:12]}",
            soft_wrap=True,
        )
