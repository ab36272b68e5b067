"""Show progress: a bar on a terminal, a line once a minute elsewhere; both on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, Task

    from whatwhere.indexer.pipeline.settings import Progress as IndexingProgress

INTERVAL_S = 60.0  # between lines where there is no terminal

Report = Callable[[str, int, int | None, str], None]  # stage, done, total, and what else there is to say


@contextmanager
def of_indexing(console: Console) -> Iterator[Callable[["IndexingProgress"], None]]:
    """Show the progress of an indexing run."""
    with _shown(console) as report:
        yield lambda state: report("", state.done, state.total, f"failed {state.failed}" if state.failed else "")


@contextmanager
def of_training(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show how many training photographs are described."""
    with _shown(console) as report:
        yield lambda done, total: report("", done, total, "")


@contextmanager
def of_steps(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show how many steps of gradient ascent are done."""
    with _shown(console, "steps") as report:
        yield lambda done, total: report("", done, total, "")


@contextmanager
def of_stages(console: Console, unit: str = "images") -> Iterator[Callable[[str, int, int], None]]:
    """Show each stage on a separate line, with the items done and in total."""
    with _shown(console, unit) as report:
        yield lambda stage, done, total: report(stage, done, total, "")


@contextmanager
def _shown(console: Console, unit: str = "images") -> Iterator[Report]:
    if not console.is_terminal:
        yield Lines(console, unit)
        return
    with _bar(console, unit) as bar:
        tasks = {}

        def report(stage: str, done: int, total: int | None, more: str) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], total=total, completed=done, description=more or stage)

        yield report


def _bar(console: Console, unit: str) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Shows the rate in units per second over the last half minute, nothing before it is known."""

        def render(self, task: "Task") -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} {unit}/s")

    columns = (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console)


class Lines:
    """Prints how far the work is, once a minute: a run without a terminal has a log."""

    def __init__(self, console: Console, unit: str, now: Callable[[], float] = monotonic) -> None:
        self._console = console
        self._unit = unit
        self._now = now
        self._printed_at = now()
        self._before = ("", 0)  # stage and items done at that time

    def __call__(self, stage: str, done: int, total: int | None, more: str) -> None:
        """Report a state; print it if a minute has passed."""
        passed_s = self._now() - self._printed_at
        if stage != self._before[0]:
            self._before = (stage, done)
        if passed_s < INTERVAL_S:
            return
        rate = (done - self._before[1]) / passed_s
        told = [f"{done:,} of {total:,} {self._unit}" if total is not None else f"{done:,} {self._unit}", more]
        if rate > 0:
            told.append(f"{rate:.1f} {self._unit}/s")
            if total is not None:
                told.append(f"about {_spoken((total - done) / rate)} left")
        self._console.print(f"{stage}: " * bool(stage) + ", ".join(filter(None, told)), soft_wrap=True)
        self._printed_at, self._before = self._now(), (stage, done)


def _spoken(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{max(minutes, 1)} min" if minutes < 120 else f"{seconds / 3600:.1f} h"
