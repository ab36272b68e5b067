"""Visualize a factor: `whatwhere visualize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whatwhere.indexer.features.names import VISUALIZATION_STEPS
from whatwhere.indexer.storage.files import file_named
from whatwhere.indexer.storage.outputs import Output
from whatwhere.service.cli import progress
from whatwhere.service.cli.app import app, messages, out, print_json, stoppable
from whatwhere.service.cli.options import AsJson, Collection, CollectionWeights, Device, OnDevice, Overwrite
from whatwhere.service.cli.places import path_or_none, place_of
from whatwhere.service.cli.tables import print_table
from whatwhere.service.search.defaults import DEFAULT_PATCHES, MAX_PATCHES

if TYPE_CHECKING:
    from whatwhere.service.search.visualization import Visualization


@app.command()
def visualize(
    image: Annotated[str, typer.Argument(metavar="IMAGE|images/ID", help="Image file, or name of a stored image.")],
    factor: Annotated[int, typer.Option(metavar="K", help="Index of the factor; 0 is the strongest.")],
    collection: Collection,
    picture: Annotated[Path, typer.Option(metavar="FILE", help="Draw to this file; the extension chooses the format.")],
    patches: Annotated[
        int, typer.Option(min=0, max=MAX_PATCHES, help="Number of stored images that show the factor.")
    ] = DEFAULT_PATCHES,
    steps: Annotated[
        int, typer.Option(min=1, max=10_000, help="Steps of gradient ascent; more add texture.")
    ] = VISUALIZATION_STEPS,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the start.")] = 0,
    weights: CollectionWeights = None,
    device: OnDevice = Device.AUTO,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show what a factor looks like: to the network, and in other photographs of the collection.

    `whatwhere explain` shows the factors of an image. For one of them, gradient ascent changes the pixels of a gray
    picture until the network's activations point along the factor's row of V; the cosine measures how closely. This
    takes half a minute on a CPU with the default network, and longer in proportion to a network's cost (`whatwhere
    backbones`). The same seed gives the same picture.

    The patches come from the stored images with the most similar factors, at most one per image. Their score is the
    cosine of the two whitened rows of V.

    Example: `whatwhere visualize images/12 --factor 0 -c ~/pictures.ww --picture concept.png`

    Example: `whatwhere visualize bike.jpg --factor 2 -c ~/pictures.ww --picture concept.png --patches 16 --seed 1`
    """
    from whatwhere.service.drawing.tiles import check_picture, save_picture
    from whatwhere.service.drawing.visualization import draw_visualization
    from whatwhere.service.local.visualize import visualize as make
    from whatwhere.service.search.visualization import VisualizationRequest

    output = Output(picture, overwrite)
    check_picture(output, [file_named(image)])
    request = VisualizationRequest(image, factor, patches, steps, seed)
    with stoppable("nothing was written"), progress.of_steps(messages) as report:
        shown = make(request, collection, weights=weights, device=device.value, progress=report, output=output)
    save_picture(draw_visualization(shown), output)
    if as_json:
        print_json(_answer(shown))
        return
    _print_answer(shown)
    out.print(f"picture: {picture}", soft_wrap=True)


def _answer(shown: "Visualization") -> dict[str, Any]:
    """Return the answer for --json."""
    patches = [
        {
            "position": position,
            "image": patch.image.name,
            "uri": patch.image.uri,
            "path": path_or_none(patch.image.uri),
            "factor": patch.similar.factor,
            "score": patch.similar.score,
            "box": patch.similar.box,
        }
        for position, patch in enumerate(shown.patches, start=1)
    ]
    return {
        "image": shown.source.name,
        "factor": shown.factor,
        "box": shown.box,
        "cosine": shown.cosine,
        "patches": patches,
    }


def _print_answer(shown: "Visualization") -> None:
    """Print the answer for people."""
    out.print(f"{shown.source.name}, factor {shown.factor}: cosine of the generated picture {shown.cosine:.2f}")
    rows = []
    for position, patch in enumerate(shown.patches, start=1):
        similar = patch.similar
        box = "" if similar.box is None else ",".join(f"{side:.3f}" for side in similar.box)
        cells = (f"{similar.score:.3f}", patch.image.name, str(similar.factor), place_of(patch.image.uri), box)
        rows.append((str(position), *cells))
    print_table(("position", "score", "image", "factor", "place", "box"), rows)
