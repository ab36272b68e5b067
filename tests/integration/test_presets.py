"""Collections of both presets, and one that version 0.1.0 wrote, asked as people ask them."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import commands
from tests.conftest import QUERY_PHOTOGRAPH, rows, written
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service.client.client import Client
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings


@pytest.fixture(scope="module")
def thesis(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a collection of the thesis' preset, with the descriptors of version 0.1.0."""
    root = tmp_path_factory.mktemp("thesis") / "photographs.ww"
    index_paths([photographs], root, IndexSettings(preset="thesis", descriptors=("what", "what-and-where")))
    return root


@contextmanager
def client_of(root: Path) -> Iterator[Client]:
    serving, port = create_server(ServerSettings(root, listen="127.0.0.1:0"))
    serving.start()
    with Client(f"127.0.0.1:{port}") as client:
        yield client
    serving.stop(grace=None)


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return commands.run(*arguments, environment=os.environ | {"COLUMNS": "500"})


def test_a_collection_of_the_thesis_grows_without_flags(thesis: Path, photographs: Path, tmp_path: Path) -> None:
    """Nothing changes but what is new, and the preset stays."""
    root = shutil.copytree(thesis, tmp_path / "c.ww")
    before = rows(root)

    done = run("index", photographs, QUERY_PHOTOGRAPH, "-c", root)
    report = json.loads(run("info", "-c", root, "--json").stdout)

    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "described 1, failed 0, duplicates 0, unchanged 8",
    )
    assert rows(root)[: len(before)] == before
    assert (report["generation"], report["searchable_images"], report["recipe"]["preset"]) == (2, 9, "thesis")
    with client_of(root) as client:
        first, second = client.search(QUERY_PHOTOGRAPH).hits[:2]
    assert (first.image.name, first.score) == ("images/9", pytest.approx(1, abs=1e-4))
    assert second.image.uri.endswith("motorcycle_right.png")


def test_a_collection_of_the_thesis_refuses_another_preset(thesis: Path, photographs: Path) -> None:
    """The message says what it is and what to do; nothing changes."""
    before = written(thesis)

    done = run("index", photographs, "-c", thesis, "--preset", "default")

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: {thesis} was made with preset 'thesis', not 'default': "
        "use the collection's own, or change it for all images with `whatwhere rebuild`"
    ]
    assert written(thesis) == before


def test_without_a_descriptor_what_and_where_is_asked_where_nothing_is_fused(thesis: Path) -> None:
    """By the server, and by the command on a collection; the fused is named as missing."""
    with client_of(thesis) as client:
        unnamed, named, what = (
            client.search(QUERY_PHOTOGRAPH, SearchOptions(descriptor=name)).hits
            for name in (None, "what-and-where", "what")
        )
    by_command = [
        json.loads(run("search", QUERY_PHOTOGRAPH, "-c", thesis, "--json", *flags).stdout)
        for flags in ((), ("--descriptor", "what-and-where"))
    ]
    fused = run("search", QUERY_PHOTOGRAPH, "-c", thesis, "--descriptor", "fused")

    assert unnamed == named != what
    assert by_command[0] == by_command[1]
    assert [hit["image"] for hit in by_command[0]["hits"]] == [hit.image.name for hit in unnamed]
    assert fused.returncode == 1
    assert "has no fused vectors, it has what, what-and-where: " in fused.stderr


def test_the_presets_give_different_answers(thesis: Path, collection: Path) -> None:
    """The same photographs and descriptor, other sums; both find the other view first."""
    found = []
    for root in (thesis, collection):
        with client_of(root) as client:
            found.append(client.search(QUERY_PHOTOGRAPH, SearchOptions(descriptor="what-and-where")).hits)

    assert [hits[0].image.uri.rpartition("/")[2] for hits in found] == ["motorcycle_right.png"] * 2
    assert abs(found[0][0].score - found[1][0].score) > 0.01


def test_the_thesis_can_be_fused_too(tmp_path: Path, photographs: Path) -> None:
    """Two parts, R-MAC's rows in the shard, regions on stored images."""
    root = tmp_path / "c.ww"
    files = [photographs / "chelsea.png", photographs / "astronaut.png", photographs / "motorcycle_right.png"]

    done = run("index", *files, "-c", root, "--preset", "thesis", "--descriptors", "fused")
    answer = json.loads(
        run("search", "images/3", "-c", root, "--region", "0.1,0.1,0.9,0.9", "--descriptor", "fused", "--json").stdout
    )

    assert done.returncode == 0
    assert (answer["hits"][0]["image"], 1 <= answer["kept_factor_count"] <= 8) == ("images/3", True)
    assert json.loads(Layout(root).recipe.read_text())["preset"] == "thesis"
