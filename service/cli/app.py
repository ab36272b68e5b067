"""The Typer app, its consoles, and the helpers that sub-commands print with."""

import functools
import inspect
import json
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from whatwhere.indexer.storage.readable import escaped

Command = Callable[..., None]


class _Console(Console):
    """Prints text without obeying the control characters in it: names and arguments may have some."""

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print; line ends in text stay."""
        super().print(*(_escaped(part) if isinstance(part, str) else part for part in objects), **settings)


def _escaped(text: str) -> str:
    return text if text.isprintable() else "\n".join(map(escaped, text.split("\n")))


# Without markup: file names are printed as they are, brackets included.
out = _Console(markup=False, highlight=False)
messages = _Console(markup=False, highlight=False, stderr=True)  # notes and progress: --quiet silences them
errors = _Console(markup=False, highlight=False, stderr=True)


def print_error(error: BaseException) -> None:
    """Print an error on one line of standard error."""
    errors.print(escaped(f"error: {error}"), style="red", soft_wrap=True)


# --- options of all commands ---------------------------------------------------------------------------------------

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, on standard error.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No notes and no progress on standard error, only warnings and errors.")
]


def set_verbosity(*, verbose: bool, quiet: bool) -> None:
    """Set what is said on standard error; False leaves it as it is."""
    if verbose:
        logging.getLogger("whatwhere").setLevel(logging.INFO)
    if quiet:
        messages.quiet = True


_VERBOSITY = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
    for name, annotation in (("verbose", Verbose), ("quiet", Quiet))
]


class _App(typer.Typer):
    """A Typer app whose commands have --verbose and --quiet, too, as people write them after the command."""

    def command(  # type: ignore[override] # the settings are passed on as they are
        self, name: str | None = None, **settings: Any
    ) -> Callable[[Command], Command]:
        """Register a command, and return it as it is."""
        register = super().command(name, **settings)

        def register_extended(command: Command) -> Command:
            register(with_options(command, set_verbosity, _VERBOSITY))
            return command

        return register_extended


def with_options(command: Command, apply: Callable[..., None], options: Sequence[inspect.Parameter]) -> Command:
    """Return a command with more options, with which `apply` is called before the command."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]

    @functools.wraps(command)
    def extended(**values: Any) -> None:
        apply(**{option.name: values.pop(option.name) for option in options})
        command(**values)

    # Typer reads these.
    extended.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    extended.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *options]}
    return extended


def new_app(**settings: Any) -> typer.Typer:
    """Return an app, or a group of commands."""
    return _App(no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False, **settings)


app = new_app(
    name="whatwhere",
    help="Content-based image search that answers what matched and where.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


# --- stopping and printing -----------------------------------------------------------------------------------------


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


@contextmanager
def ending_at_second_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C raise KeyboardInterrupt, and a second one end the process at once: clean-up can take long.

    A signal that is ignored, or handled by the program around, stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return

    def interrupt_once(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt_once)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt_once:
            signal.signal(signal.SIGINT, before)


def print_json(value: Any) -> None:
    """Print a value as JSON for programs; types that JSON lacks (times, paths) become text."""
    print(json.dumps(value, indent=2, default=str))
