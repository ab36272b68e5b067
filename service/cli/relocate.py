"""Tell a collection that its files were moved: `whatwhere relocate`."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from whatwhere.service.cli import progress
from whatwhere.service.cli.app import app, errors, messages, out, print_json, stoppable
from whatwhere.service.cli.options import AsJson, Collection
from whatwhere.service.cli.places import place_of

if TYPE_CHECKING:
    from whatwhere.indexer.maintenance.relocate import Relocated


@app.command()
def relocate(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="The folder, or the file, as it was indexed. It need not exist.")
    ],
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="Where it is now: a path, or a URI such as s3://BUCKET/FOLDER.")
    ],
    collection: Collection,
    check: Annotated[int, typer.Option(min=0, metavar="N", help="Number of files to compare by their content.")] = 20,
    accept: Annotated[
        int, typer.Option(min=0, metavar="N", help="Write even if up to N files are absent or different.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and show what would change.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell a collection that its files were moved. Nothing is read again, except the files to check.

    All images below OLD get the URI below NEW: a local folder or an object store. Ids, metadata and vectors stay. An
    image that was already indexed at its new place is merged with it. Names that differ only in their Unicode form (a
    disk of a Mac) are matched.

    First, N files are read at NEW and compared with what was indexed. If any of them is absent or different, all of
    these are listed, nothing is written, and the exit code is 1. Running servers answer with the new places at once.

    Example: `whatwhere relocate ~/Pictures /mnt/archive/Pictures -c ~/pictures.ww`

    Example: `whatwhere relocate ~/Pictures s3://bucket/photographs -c ~/pictures.ww --check 200 --dry-run`
    """
    from whatwhere.indexer.maintenance.relocate import RelocateSettings
    from whatwhere.indexer.maintenance.relocate import relocate as move

    settings = RelocateSettings(check, accept, dry_run)
    with stoppable("nothing is changed: run again"), progress.of_stages(messages, "sources") as report:
        done = move(collection, old, new, settings, report)
    refused = not done.written and len(done.differences) > accept
    if as_json:
        print_json(dataclasses.asdict(done))
    else:
        _print(done, collection, dry_run=dry_run and not refused)
    if refused:
        raise typer.Exit(1)


def _print(done: "Relocated", collection: str, *, dry_run: bool) -> None:
    for difference in done.differences:
        errors.print(f"{place_of(difference.uri)}: {difference.reason}", soft_wrap=True)
    for before, after in done.examples if dry_run else ():
        out.print(f"{place_of(before)} -> {place_of(after)}", soft_wrap=True)
    merged = f", {done.merged} of them merged with images that were there" if done.merged else ""
    compared = f"compared {done.checked}, different {len(done.differences)}"
    if done.written:
        out.print(f"relocated {done.sources}{merged}; {compared}")
        out.print(f"{collection}: generation {done.generation}", soft_wrap=True)
    elif dry_run:
        out.print(f"would relocate {done.sources}{merged}; {compared}")
    else:
        out.print(f"relocated 0 of {done.sources}; {compared}")
        errors.print(
            f"nothing was changed: put these files there, or write all the same with --accept {len(done.differences)}",
            soft_wrap=True,
        )
