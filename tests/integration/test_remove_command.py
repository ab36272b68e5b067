"""`whatwhere remove` as people run it: what is removed is gone from the next generation, and stays out."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.integration.test_index_command import run_afresh
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.errors import CollectionNotFound, ImageNotFound, InvalidFilter, WhatwhereError
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service import cli

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = IndexSettings(descriptors=("what", "gem"))


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give lines room, so that no name is folded."""
    monkeypatch.setenv("COLUMNS", "500")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of six small pictures, one of them twice, one torn, two in a folder of their own."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "private").mkdir()
    random = np.random.default_rng(11)
    for number, name in enumerate(("0.png", "1.png", "2.png", "private/3.png", "private/4.png")):
        pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC).save(folder / name)
        (folder / f"{name}.json").write_text(json.dumps({"rating": number}))
    shutil.copy(folder / "0.png", folder / "private" / "copy.png")
    (folder / "private" / "torn.png").write_text("torn")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """Give a collection of them that no test may change: 0, 1, 2 are images/1 to 3, those in the folder 4 to 6."""
    root = tmp_path_factory.mktemp("made") / "c.ww"
    index_paths([pictures], root, SETTINGS)
    return root


@pytest.fixture
def root(tmp_path: Path, made: Path) -> Path:
    """Give a collection of one's own."""
    return Path(shutil.copytree(made, tmp_path / "c.ww"))


def call(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli.app, [*map(str, arguments)])


def answer(*arguments: str | Path) -> dict[str, object]:
    """Run `remove` and return what it tells programs."""
    done = call("remove", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def states(root: Path) -> dict[int, str]:
    with Catalog.open(Layout(root).catalog) as catalog:
        return {image.id: image.state for image in catalog.images()}


def searchable(root: Path) -> list[int]:
    with open_collection(root) as reader:
        return list(reader.ids.tolist())


def test_the_pictures_are_numbered_as_the_tests_say(made: Path) -> None:
    """What the other tests rely on."""
    assert states(made) == {1: "indexed", 2: "indexed", 3: "indexed", 4: "indexed", 5: "indexed", 6: "failed"}
    assert searchable(made) == [1, 2, 3, 4, 5]


def test_a_removal_says_what_it_does(root: Path, pictures: Path) -> None:
    """A real process: the images with their places, how many went, and the generation without them."""
    done = run_afresh("remove", "images/4", "2", "-c", root)

    assert (done.returncode, done.stderr) == (0, "")
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["name", "state", "place"]
    assert [line.split() for line in lines[:2]] == [
        ["images/2", "indexed", str(pictures / "1.png")],
        ["images/4", "indexed", str(pictures / "private" / "3.png")],
    ]
    assert lines[2:] == ["removed 2", f"{root}: generation 2"]
    assert searchable(root) == [1, 3, 5]


@pytest.mark.parametrize(
    ("selection", "removed"),
    [
        (("1",), [1]),
        (("images/1", "1", "5"), [1, 5]),
        (("--uri", "file://*/private/*"), [1, 4, 5, 6]),
        (("--uri", "*/[12].png"), [2, 3]),
        (("--uri", "*/PRIVATE/*"), []),
        (("--where", "rating >= 3"), [4, 5]),
        (("--where", 'rating = 2 OR uri = "*/1.png"'), [2, 3]),
        (("--uri", "*/private/*", "--where", "rating < 4"), [1, 4]),
        (("1", "4", "--where", "rating = 3"), [4]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_images_are_chosen_by_name_place_and_filter(root: Path, selection: Sequence[str], removed: list[int]) -> None:
    """A copy's place counts as its image's; what several parts say must all hold."""
    told = answer(*selection, "-c", root)

    assert told["images"] == [f"images/{identifier}" for identifier in removed]
    assert told["removed"] == len(removed)
    assert [identifier for identifier, state in states(root).items() if state == "removed"] == removed
    assert searchable(root) == [identifier for identifier in (1, 2, 3, 4, 5) if identifier not in removed]


def test_what_was_removed_is_not_found(root: Path, pictures: Path) -> None:
    """A search for the very picture does not answer with it."""
    call("remove", "1", "-c", root)

    done = call("search", pictures / "0.png", "-c", root, "--json")

    found = [hit["image"] for hit in json.loads(done.stdout)["hits"]]
    assert sorted(found) == ["images/2", "images/3", "images/4", "images/5"]


def test_a_later_run_does_not_bring_it_back(root: Path, pictures: Path, tmp_path: Path) -> None:
    """Neither its own file, however thoroughly it is read, nor a copy elsewhere."""
    call("remove", "2", "6", "-c", root)
    copies = tmp_path / "copies"
    copies.mkdir()
    shutil.copy(pictures / "1.png", copies / "copy.png")

    summary = index_paths([pictures, copies], root, IndexSettings(checksum=True, retry_failed=True))

    assert (summary.progress.described, summary.progress.failed, summary.published) == (0, 0, False)
    assert states(root) == {1: "indexed", 2: "removed", 3: "indexed", 4: "indexed", 5: "indexed", 6: "removed"}
    assert searchable(root) == [1, 3, 4, 5]


def test_a_removal_is_undone(root: Path, pictures: Path) -> None:
    """Indexed images are searchable again, failed ones are listed with their reason, nothing is described."""
    before = states(root)
    call("remove", "--uri", "*/private/*", "-c", root)

    told = answer("--undo", "--uri", "*/private/*", "-c", root)

    assert told == {"images": ["images/1", "images/4", "images/5", "images/6"], "restored": 4, "generation": 3}
    assert states(root) == before
    assert searchable(root) == [1, 2, 3, 4, 5]
    assert index_paths([pictures], root).published is False


def test_only_what_was_removed_is_undone(root: Path) -> None:
    """A filter that holds for others too chooses the removed ones alone."""
    call("remove", "4", "-c", root)

    told = answer("--undo", "--where", "rating >= 0", "-c", root)

    assert (told["images"], told["restored"]) == (["images/4"], 1)


def test_metadata_outlives_a_removal(root: Path) -> None:
    """What was known of an image is known when it comes back."""
    call("remove", "4", "-c", root)
    call("remove", "--undo", "4", "-c", root)

    with Catalog.open(Layout(root).catalog) as catalog:
        restored = catalog.image(4)

    assert restored is not None
    assert restored.user_metadata == {"rating": 3}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_changes_nothing(root: Path, as_json: bool) -> None:
    """It shows what it would do."""
    before = states(root), Layout(root).current_number()

    done = call("remove", "1", "2", "-c", root, "--dry-run", *(["--json"] if as_json else []))

    assert done.exit_code == 0
    if as_json:
        assert json.loads(done.stdout) == {"images": ["images/1", "images/2"], "removed": 0, "generation": None}
    else:
        assert done.stdout.splitlines()[-1] == "would remove 2"
    assert (states(root), Layout(root).current_number()) == before


def test_removing_twice_is_removing_once(root: Path) -> None:
    """The second time nothing changes, and nothing is published."""
    first, second = answer("1", "-c", root), answer("1", "-c", root)

    assert (first["removed"], first["generation"]) == (1, 2)
    assert (second["removed"], second["generation"]) == (0, 2)


def test_a_removal_that_was_killed_before_its_generation_is_finished_by_the_next(root: Path) -> None:
    """What the catalogue has lost, no later generation holds."""
    with open_for_writing(root) as writer:
        writer.catalog.remove([1, 2])

    told = answer("1", "2", "-c", root)

    assert (told["removed"], told["generation"]) == (0, 2)
    assert searchable(root) == [3, 4, 5]


def test_long_lists_are_shown_in_part(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is counted."""
    monkeypatch.setattr("whatwhere.indexer.maintenance.remove._SHOWN", 2)

    done = call("remove", "--uri", "*", "-c", root, "--dry-run")

    # an image has a line for each of its places
    names = dict.fromkeys(line.split()[0] for line in done.stdout.splitlines() if line.startswith("images/"))
    assert [*names] == ["images/1", "images/2"]
    assert done.stdout.splitlines()[-2:] == ["... and 4 more: --json lists all", "would remove 6"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            ("1", "99", "images/98"),
            ImageNotFound,
            "images/98, images/99 not in the collection: `whatwhere images` lists",
        ),
        (("--where", "rating >"), InvalidFilter, ""),
        (("--where", "rating"), InvalidFilter, ""),
    ],
    ids=["unknown", "half a filter", "no filter"],
)
def test_what_cannot_be_chosen_is_named_before_anything_is_done(
    root: Path, arguments: Sequence[str], error: type[WhatwhereError], words: str
) -> None:
    """Also what could be removed of it stays."""
    before = states(root)

    done = call("remove", *arguments, "-c", root)

    assert isinstance(done.exception, error)
    assert words in str(done.exception)
    assert done.stdout == ""
    assert states(root) == before


def test_a_directory_that_is_no_collection_is_named(tmp_path: Path) -> None:
    """And nothing is made of it."""
    done = call("remove", "1", "-c", tmp_path)

    assert isinstance(done.exception, CollectionNotFound)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [(), ("--undo",), ("x",), ("images/",), ("images/-1",), ("images/1.5",), ("9" * 19,), ("images/images/1",)],
    ids=" ".join,
)
def test_wrong_usage_has_an_exit_code_of_its_own(root: Path, arguments: Sequence[str]) -> None:
    """Nothing to choose by, or no name of an image."""
    assert call("remove", *arguments, "-c", root).exit_code == 2
