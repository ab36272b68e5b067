"""`whatwhere visualize` as people run it."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import INDEXED_PHOTOGRAPHS, QUERY_PHOTOGRAPH
from tests.integration.test_search_command import run
from whatwhere.service.drawing.tiles import TILE_SIZE

# The command in an interpreter of its own: Rich looks for a terminal when it is imported. Some shells start their
# background jobs without the handler of Ctrl-C.
CHILD = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from whatwhere.service.cli import main
main()
"""
FEW = ("--steps", "2")
LONG = 10_000


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Give the path of a picture that is not there yet."""
    return tmp_path / "concept.png"


def answered(*arguments: str | Path) -> dict[str, Any]:
    done = run("visualize", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def tile(picture: Path, row: int, column: int) -> NDArray[np.uint8]:
    """Cut out where a tile's photograph is: margins of 16 pixels, captions of 44."""
    left, top = (16 + place * (side + gap) for place, side, gap in zip((column, row), TILE_SIZE, (16, 60), strict=True))
    with Image.open(picture) as drawn:
        return np.asarray(drawn.convert("RGB").crop((left, top, left + TILE_SIZE[0], top + TILE_SIZE[1])))


def test_a_stored_image_is_shown_with_the_patches_of_others(collection: Path, picture: Path) -> None:
    """Every documented key, the image itself not among the others, and a picture of three rows."""
    answer = answered("images/1", "--factor", "0", "-c", collection, "--picture", picture, "--patches", "5", *FEW)

    assert set(answer) == {"image", "factor", "box", "cosine", "patches"}
    assert (answer["image"], answer["factor"]) == ("images/1", 0)
    assert -1 <= answer["cosine"] <= 1
    assert [patch["position"] for patch in answer["patches"]] == [1, 2, 3, 4, 5]
    assert set(answer["patches"][0]) == {"position", "image", "uri", "path", "factor", "score", "box"}
    assert "images/1" not in [patch["image"] for patch in answer["patches"]]
    scores = [patch["score"] for patch in answer["patches"]]
    assert scores == sorted(scores, reverse=True)
    with Image.open(picture) as drawn:
        assert drawn.height > 3 * TILE_SIZE[1]


def test_a_wheel_of_a_picture_file_is_found_on_the_other_view(collection: Path, picture: Path) -> None:
    """The left view of the motorbike is described by the collection's network: the right one shows the same concept."""
    done = run("visualize", QUERY_PHOTOGRAPH, "--factor", "0", "-c", collection, "--picture", picture, *FEW)

    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0].startswith("motorcycle_left.png, factor 0: cosine of the generated picture ")
    assert "motorcycle_right.png" in lines[2]
    assert lines[-1] == f"picture: {picture}"


def test_more_steps_lead_nearer_and_the_seed_decides_the_picture(collection: Path, picture: Path) -> None:
    """Both flags arrive."""
    common = ("images/1", "--factor", "0", "-c", collection, "--picture", picture, "--patches", "0", "--overwrite")

    made = []
    for flags in (("--steps", "2"), ("--steps", "12"), ("--steps", "2", "--seed", "5")):
        answer = answered(*common, *flags)
        made.append((answer["cosine"], picture.read_bytes()))

    (few, few_drawn), (many, _), (_, other_drawn) = made
    assert many > few
    assert other_drawn != few_drawn


def test_a_file_that_is_not_on_this_machine_says_so_in_its_tile(tmp_path: Path, picture: Path) -> None:
    """The concept is shown nevertheless, from what is stored."""
    photographs, root = tmp_path / "photographs", tmp_path / "c.ww"
    photographs.mkdir()
    for path in INDEXED_PHOTOGRAPHS[:2]:
        shutil.copy(path, photographs)
    assert run("index", photographs, "--collection", root).returncode == 0
    shutil.rmtree(photographs)

    answered("images/1", "--factor", "0", "-c", root, "--picture", picture, *FEW)

    missing = [tile(picture, row, column) for row, column in ((0, 0), (0, 1), (1, 0))]
    assert all(np.median(pixels) == 255 and pixels.min() < 160 for pixels in missing)  # a line of text on white
    assert np.array_equal(missing[0], missing[2])
    assert np.median(tile(picture, 0, 2)[60:160, 100:200]) < 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("images/1", "--factor", "99"), "factor 99 does not exist, the image has 8 factors"),
        (("{photograph}", "--factor", "8"), "from 0 to 7"),
        (("images/77", "--factor", "0"), "images/77 is not in the collection"),
        (("no-such-file.jpg", "--factor", "0"), "no-such-file.jpg"),
        (("images/1", "--factor", "0", "--picture", "/no/such/folder/a.png"), "/no/such/folder"),
        (("images/1", "--factor", "0", "-c", "no-such-collection"), "whatwhere index"),
    ],
)
def test_an_error_is_a_sentence_not_a_traceback(
    collection: Path, picture: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit code 1, one line that names the value or the remedy, and no picture."""
    filled = [text.format(photograph=QUERY_PHOTOGRAPH) for text in arguments]

    done = run("visualize", "-c", collection, "--picture", picture, *filled)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not picture.exists()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Give both ends of a terminal."""
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize(("stop", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "TERM"])
def test_an_ascent_shows_its_steps_and_can_be_stopped(
    collection: Path, picture: Path, terminal: tuple[int, int], stop: signal.Signals, exit_code: int
) -> None:
    """A bar of steps on a terminal; one sentence and the exit code of the signal, and no picture."""
    arguments = ("visualize", "images/1", "--factor", "0", "-c", collection, "--picture", picture, "--steps", LONG)
    own, its = terminal
    with subprocess.Popen([sys.executable, "-c", CHILD, *map(str, arguments)], stderr=its) as process:
        shown = b""
        while b"2/10000" not in shown:
            shown += os.read(own, 1024)
        process.send_signal(stop)
        while b"nothing was written" not in shown:
            shown += os.read(own, 1024)
        process.wait(30)

    assert process.returncode == exit_code
    assert b"Traceback" not in shown
    assert not picture.exists()


def test_the_help_is_a_manual_page() -> None:
    """What is computed, what the numbers mean, and examples."""
    page = " ".join(run("visualize", "--help").stdout.split())

    for words in ("gradient ascent", "cosine", "the same seed", "whatwhere explain", "Example:"):
        assert words.lower() in page.lower()
    assert sys.executable not in page
