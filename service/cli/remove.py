"""Remove images: `whatwhere remove`."""

from typing import TYPE_CHECKING, Annotated

import typer

from whatwhere.indexer.storage.readable import absolute_place
from whatwhere.service.cli.app import app, messages, out, print_json, stoppable
from whatwhere.service.cli.options import AsJson, Collection, absolute_filter
from whatwhere.service.cli.places import place_of
from whatwhere.service.cli.tables import print_table

if TYPE_CHECKING:
    from whatwhere.indexer.maintenance.remove import Chosen


@app.command()
def remove(
    collection: Collection,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[ID|images/ID]...", help="Names of images.", show_default=False)
    ] = None,
    uri: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Images whose path or URI matches: * any text, ? any character, [abc]."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="EXPRESSION",
            help="Images that match a filter, such as 'label = \"boat\"'.",
            callback=absolute_filter,
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Restore removed images.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the images.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove images from a collection. The files themselves are not touched.

    If several of names, --uri and --where are given, an image must match them all. Removed images stay out, even if
    `index` finds their files or copies again, until `remove --undo`. `compact` frees their space.

    Example: `whatwhere remove --uri '/home/me/Pictures/private/*' --collection ~/pictures.ww`
    """
    from whatwhere.indexer.maintenance.remove import ImageSelection, choose, remove_images, restore_images

    glob = None if uri is None else absolute_place(uri)
    selection = ImageSelection(tuple(map(_identifier, images or ())), glob, where)
    if selection.is_empty:
        raise typer.BadParameter("choose images: by name, --uri GLOB or --where EXPRESSION")
    chosen = choose(collection, selection, removed=undo)
    if not as_json:
        _show(chosen)
    done = None
    if not dry_run:
        with stoppable("run again to continue"):
            done = (restore_images if undo else remove_images)(collection, chosen.ids)
    if as_json:
        print_json(
            {
                "images": [f"images/{identifier}" for identifier in chosen.ids],
                "restored" if undo else "removed": 0 if done is None else done.count,
                "generation": None if done is None else done.generation,
            }
        )
    elif done is None:
        out.print(f"would {'restore' if undo else 'remove'} {len(chosen.ids)}")
    else:
        out.print(f"{'restored' if undo else 'removed'} {done.count}")
        out.print(f"{collection}: generation {done.generation}", soft_wrap=True)


def _identifier(name: str) -> int:
    number = name.removeprefix("images/")
    if not (number.isascii() and number.isdigit() and len(number) < 19):  # SQLite integers have 64 bits
        raise typer.BadParameter(f"{name!r} is not an image name: give images/12 or 12")
    return int(number)


def _show(chosen: "Chosen") -> None:
    """Print the first images with their URIs, and how many more there are."""
    if chosen.first:
        rows = [(f"images/{record.id}", record.state, "\n".join(map(place_of, record.uris))) for record in chosen.first]
        print_table(("name", "state", "place"), rows)
    else:
        messages.print("no image matches: `whatwhere images` lists all images, with their places")
    if len(chosen.ids) > len(chosen.first):
        out.print(f"... and {len(chosen.ids) - len(chosen.first)} more: --json lists all")
