"""Progress where there is no terminal: a line once a minute."""

import io

from rich.console import Console

from whatwhere.indexer.pipeline.settings import Progress
from whatwhere.service.cli import progress


class Clock:
    """Gives the time that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now_s


def test_a_line_a_minute_says_how_far_a_run_is() -> None:
    """Items, failures, the rate since the last line and the time that is left; nothing in between."""
    file, clock = io.StringIO(), Clock()
    report = progress.Lines(Console(file=file, width=20), "images", clock)

    for second in range(130):
        clock.now_s = 1000.0 + second
        report("", 10 * second, 100_000, "failed 2" if second > 90 else "")

    assert file.getvalue().splitlines() == [
        "600 of 100,000 images, 10.0 images/s, about 2.8 h left",
        "1,200 of 100,000 images, failed 2, 10.0 images/s, about 2.7 h left",
    ]


def test_stages_are_named_and_a_total_can_be_unknown() -> None:
    """A new stage has a rate of its own."""
    file, clock = io.StringIO(), Clock()
    report = progress.Lines(Console(file=file), "items", clock)

    report("reading", 5, None, "")
    clock.now_s += 61
    report("copying", 100, 400, "")
    clock.now_s += 60
    report("copying", 250, 400, "")

    assert file.getvalue().splitlines() == [
        "copying: 100 of 400 items",
        "copying: 250 of 400 items, 2.5 items/s, about 1 min left",
    ]


def test_a_run_without_a_terminal_prints_lines() -> None:
    """By the function that commands call; --quiet silences them."""
    file = io.StringIO()
    console = Console(file=file)
    before = progress.INTERVAL_S
    progress.INTERVAL_S = 0.0
    try:
        with progress.of_indexing(console) as report:
            report(Progress(total=9, described=3))
            console.quiet = True
            report(Progress(total=9, described=4))
    finally:
        progress.INTERVAL_S = before

    assert file.getvalue().startswith("3 of 9 images")
    assert file.getvalue().count("\n") == 1
