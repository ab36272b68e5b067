"""The Typer app, its two consoles, and the helpers that sub-commands print with."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    name="whatwhere",
    help="Content-based image search that answers what matched and where.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
# Without markup: file names are printed as they are, brackets included.
out = Console(markup=False, highlight=False)
messages = Console(markup=False, highlight=False, stderr=True)


@contextmanager
def stoppable(what_is_kept: str) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, end the work with a message and the exit code of the signal."""

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


def new_table(*columns: str) -> Table:
    """Return a table that folds long cells and never cuts them, so that all that is shown can be copied."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_json(value: Any) -> None:
    """Print a value as JSON for programs; types that JSON lacks (times, paths) become text."""
    print(json.dumps(value, indent=2, default=str))
