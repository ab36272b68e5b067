"""The command `whatwhere`: each sub-command reads its options and calls one function.

Exit codes: 0 done, 1 a named error, 2 wrong usage, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

import contextlib
import io
import logging
import sys
import warnings
from typing import Annotated

import typer

from whatwhere.indexer.errors import WhatwhereError
from whatwhere.service.cli import (  # noqa: F401 - each registers its commands
    demo,
    evaluate,
    explain,
    index,
    info,
    maintenance,
    operate,
    relocate,
    remove,
    search,
    serve,
    tokens,
    transfer,
    visualize,
    whiten,
)
from whatwhere.service.cli.app import Quiet, Verbose, app, ending_at_second_interrupt, print_error, set_verbosity

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s", level=logging.WARNING)
    escape_output()
    logging.captureWarnings(True)  # else they would stand bare between the lines of the log
    quiet_libraries()
    try:
        with ending_at_second_interrupt():
            app(standalone_mode=True)
    except (WhatwhereError, OSError) as error:  # OSError: disk full, read-only, permission; its sentence names the file
        print_error(error)
        sys.exit(1)


def escape_output() -> None:
    """Escape characters that the terminal's encoding lacks, in all output, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        # OSError: it was opened on a file, and a pipe was put in the file's place.
        with contextlib.suppress(OSError):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")


def quiet_libraries() -> None:
    """Keep libraries from telling at length what is named and logged once by us; for a process that is ours alone."""
    # Pillow warns of each corrupt entry that it skips: up to 65,536 lines for a file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Nor do their log lines name the file.
    for name in ("PIL", "PIL.TiffImagePlugin", "tifffile"):
        logging.getLogger(name).addFilter(_is_critical)
    # pymilvus logs each failed try with its traceback. By a filter: a level would be set back when it is imported.
    for name in ("decorators", "client.connection_manager", "client.grpc_handler"):
        logging.getLogger(f"pymilvus.{name}").addFilter(_is_critical)


def _is_critical(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.CRITICAL


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata  # brings the parsers of e-mail

        print(importlib.metadata.version("whatwhere"))
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    set_verbosity(verbose=verbose, quiet=quiet)
