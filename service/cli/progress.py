"""Show progress on a terminal: items done, rate, remaining time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from whatwhere.indexer.pipeline.settings import Progress as IndexingProgress


class _Rate(ProgressColumn):
    """Show the rate in images or other units per second over the last half minute."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Return the rate, empty before it is known."""
        return Text("" if task.speed is None else f"{task.speed:.1f} {self._unit}/s")


@contextmanager
def of_indexing(console: Console) -> Iterator[Callable[["IndexingProgress"], None]]:
    """Show the progress of an indexing run."""
    with _bar(console) as bar:
        task = bar.add_task("", total=None)

        def report(state: "IndexingProgress") -> None:
            text = f"failed {state.failed}" if state.failed else ""
            bar.update(task, total=state.total, completed=state.done, description=text)

        yield report


@contextmanager
def of_training(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show how many training photographs are described."""
    with _bar(console) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, total=total, completed=done)


@contextmanager
def of_stages(console: Console, unit: str = "images") -> Iterator[Callable[[str, int, int], None]]:
    """Show each stage on a separate line, with the items done and in total."""
    with _bar(console, unit) as bar:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], total=total, completed=done)

        yield report


def _bar(console: Console, unit: str = "images") -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console, disable=not console.is_terminal)
