"""Define the situations of the killed commands: a first run, a later run, a removal, a compaction."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.killing.children import Request, run
from tests.killing.collections import Answers, answers, contents


@dataclass(frozen=True)
class Situation:
    """Hold a command on a collection (`before`; None if it creates one), and its undisturbed result."""

    name: str
    arguments: tuple[str, ...]  # of the command, less the collection
    before: Path | None
    generation_before: int
    answers_before: Answers | None
    steps: tuple[str, ...]
    duration_s: float
    answers_after: Answers
    contents_after: dict[str, Any]


NAMES = ("first run", "later run", "removal", "compaction")
_INDEX = ("--batch-size", "2", "--descriptors", "what,gem")


def situations(scratch: Path) -> dict[str, Situation]:
    """Create the situations in a folder; each starts from the result of the previous one."""
    for name in ("first", "changing"):
        _first_pictures(scratch / name)
    base = scratch / "base.ww"
    # The first of all waits for the server that forks: what is timed comes second.
    _undisturbed(NAMES[0], ("index", str(scratch / "changing"), *_INDEX), None, base)
    first = _undisturbed(NAMES[0], ("index", str(scratch / "first"), *_INDEX), None, scratch / "first.ww")
    _change(scratch / "changing")
    made = [first]
    for name, arguments in zip(
        NAMES[1:],
        (("index", str(scratch / "changing"), *_INDEX, "--prune"), ("remove", "1", "images/3"), ("compact",)),
        strict=True,
    ):
        after = scratch / f"{name}.ww"
        made.append(_undisturbed(name, arguments, base, after))
        base = after
    return {situation.name: situation for situation in made}


def _first_pictures(folder: Path) -> None:
    """Draw eight pictures; one is a copy of another and one is truncated.

    They are narrow: such pictures cost the network a quarter of what others do.
    """
    folder.mkdir()
    for number in range(8):
        _draw(folder / f"{number}.png", number)
    shutil.copy(folder / "1.png", folder / "4.png")
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:100])


def _change(folder: Path) -> None:
    """Add two pictures, change one, repair the truncated one, move one and delete one."""
    _draw(folder / "20.png", 20)
    _draw(folder / "21.png", 21)
    _draw(folder / "2.png", 22)
    _draw(folder / "5.png", 5)
    (folder / "moved").mkdir()
    (folder / "6.png").rename(folder / "moved" / "6.png")
    (folder / "7.png").unlink()


def _draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (1, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((96, 1), Image.Resampling.BICUBIC).save(path)


def _undisturbed(name: str, arguments: tuple[str, ...], before: Path | None, root: Path) -> Situation:
    """Run a command on a copy of a collection, undisturbed."""
    if before is not None:
        shutil.copytree(before, root)
    output, trace = root.with_suffix(".output"), root.with_suffix(".steps")
    begin = time.monotonic()
    code = run(Request((*arguments, "--collection", str(root)), str(output), str(trace)))
    assert code == 0, output.read_text()
    return Situation(
        name,
        arguments,
        before,
        *((0, None) if before is None else answers(before)),
        tuple(trace.read_text().splitlines()),
        time.monotonic() - begin,
        answers(root)[1],
        contents(root),
    )
