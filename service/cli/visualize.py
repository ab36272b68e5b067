"""See what a concept is: `whatwhere visualize`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whatwhere.indexer.features.names import VISUALIZATION_STEPS
from whatwhere.service.cli.app import app, messages, new_table, out, print_json, stoppable
from whatwhere.service.cli.options import AsJson, Collection, CollectionWeights, Device, OnDevice
from whatwhere.service.search.defaults import DEFAULT_PATCHES, MAX_PATCHES

if TYPE_CHECKING:
    from whatwhere.service.search.visualization import Visualization


@app.command()
def visualize(
    image: Annotated[str, typer.Argument(metavar="IMAGE|images/ID", help="A picture, or a stored image's name.")],
    factor: Annotated[int, typer.Option(metavar="K", help="The factor, 0 the image's strongest.")],
    collection: Collection,
    picture: Annotated[
        Path, typer.Option(metavar="FILE", help="Draw to this file, in the format that its name ends in.")
    ],
    patches: Annotated[
        int, typer.Option(min=0, max=MAX_PATCHES, help="Stored images to show the concept in.")
    ] = DEFAULT_PATCHES,
    steps: Annotated[
        int, typer.Option(min=1, max=10_000, help="Steps of the ascent; more add texture.")
    ] = VISUALIZATION_STEPS,
    seed: Annotated[int, typer.Option(min=0, help="Where the ascent starts: another one, another picture.")] = 0,
    weights: CollectionWeights = None,
    device: OnDevice = Device.AUTO,
    as_json: AsJson = False,
) -> None:
    """Show what a concept looks like: to the network, and in the collection's photographs.

    A concept is one factor of one image (`whatwhere explain` shows them). The collection's network is asked for a
    picture that shows nothing else: from grey, by gradient ascent, pixels are changed until the activations point
    along the factor's row of V; the cosine says how nearly they do. That takes half a minute on a CPU; networks with
    more multiplications (`whatwhere backbones`) take as many times longer. The same seed gives the same picture.

    Beside it stand the patches of other stored images whose factors are the most similar, at most one of an image; the
    score is the cosine of the two rows of V, whitened.

    Example: `whatwhere visualize images/12 --factor 0 -c ~/pictures.ww --picture concept.png`

    Example: `whatwhere visualize bike.jpg --factor 2 -c ~/pictures.ww --picture concept.png --patches 16 --seed 1`
    """
    from whatwhere.service.drawing.tiles import check_picture_path, save_picture
    from whatwhere.service.drawing.visualization import draw_visualization
    from whatwhere.service.local.visualize import visualize as make
    from whatwhere.service.search.visualization import Asked

    check_picture_path(picture)
    asked = Asked(image, factor, patches, steps, seed)
    with stoppable("nothing was written"), _progress() as report:
        shown = make(asked, collection, weights=weights, device=device.value, progress=report)
    save_picture(draw_visualization(shown), picture)
    if as_json:
        print_json(_answer(shown))
        return
    _print_answer(shown)
    out.print(f"picture: {picture}", soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
    with Progress(*columns, console=messages, disable=not messages.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, total=total, completed=done)


def _answer(shown: "Visualization") -> dict[str, Any]:
    """Return what programs read."""
    patches = [
        {
            "position": position,
            "image": patch.image.name,
            "uri": patch.image.uri,
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
    """Print what people read."""
    out.print(f"{shown.source.name}, factor {shown.factor}: the picture's cosine to it is {shown.cosine:.2f}")
    table = new_table("position", "score", "image", "factor", "uri", "box")
    for position, patch in enumerate(shown.patches, start=1):
        similar = patch.similar
        box = "" if similar.box is None else ",".join(f"{side:.3f}" for side in similar.box)
        table.add_row(
            str(position), f"{similar.score:.3f}", patch.image.name, str(similar.factor), patch.image.uri, box
        )
    out.print(table)
