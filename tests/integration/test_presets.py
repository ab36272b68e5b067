"""Collections of both presets, and one that version 0.1.0 wrote, asked as people ask them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indexer.boxes import Box
from indexer.collection import Layout
from indexer.pipeline import IndexSettings, index_paths
from service.client import Client
from service.results import SearchResult
from service.server import create_server
from service.settings import ServerSettings
from tests.conftest import QUERY_PHOTOGRAPH, as_version_0_1_0_wrote, rows, written

WHATWHERE = (sys.executable, "-m", "service.cli")
REGION = Box(0.1, 0.1, 0.9, 0.9)


@pytest.fixture(scope="module")
def thesis(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a collection of the thesis' preset, with the descriptors of version 0.1.0."""
    root = tmp_path_factory.mktemp("thesis") / "photographs.ww"
    index_paths([photographs], root, IndexSettings(preset="thesis", descriptors=("what", "what-and-where")))
    return root


@pytest.fixture
def old(thesis: Path, tmp_path: Path) -> Path:
    """Give the same as version 0.1.0 wrote it."""
    root = shutil.copytree(thesis, tmp_path / "old.ww")
    as_version_0_1_0_wrote(root)
    return root


@contextmanager
def client_of(root: Path) -> Iterator[Client]:
    serving, port = create_server(ServerSettings(root, listen="127.0.0.1:0"))
    serving.start()
    with Client(f"127.0.0.1:{port}") as client:
        yield client
    serving.stop(grace=None).wait()


def answers(root: Path) -> list[SearchResult]:
    """Ask for an upload and a stored image, with a region and without, by each descriptor and by none."""
    with client_of(root) as client:
        return [
            client.search(query, region=region, descriptor=descriptor, localize_count=1, expansion_count=1)
            for query in (QUERY_PHOTOGRAPH, "images/1")
            for region in (None, REGION)
            for descriptor in (None, "what", "what-and-where")
        ]


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [*WHATWHERE, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | {"COLUMNS": "500"})


def test_a_collection_of_version_0_1_0_answers_as_before(thesis: Path, old: Path) -> None:
    """The same images, scores, boxes and counts, to the last bit."""
    assert answers(old) == answers(thesis)


def test_a_collection_of_version_0_1_0_is_indexed_further(old: Path, photographs: Path) -> None:
    """Without flags nothing changes but what is new, and the preset stays."""
    before = rows(old)

    done = run("index", photographs, QUERY_PHOTOGRAPH, "-c", old)
    report = json.loads(run("info", "-c", old, "--json").stdout)

    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "described 1, failed 0, duplicates 0, unchanged 8, not images 0",
    )
    assert rows(old)[: len(before)] == before
    assert (report["generation"], report["searchable_images"], report["recipe"]["preset"]) == (2, 9, "thesis")
    with client_of(old) as client:
        first, second = client.search(QUERY_PHOTOGRAPH).hits[:2]
    assert (first.image.name, first.score) == ("images/9", pytest.approx(1, abs=1e-4))
    assert second.image.uri.endswith("motorcycle_right.png")


@pytest.mark.parametrize("which", ["thesis", "old"])
def test_a_collection_of_the_thesis_refuses_another_preset(
    which: str, photographs: Path, request: pytest.FixtureRequest
) -> None:
    """The message says what it is and what to do; nothing changes."""
    root: Path = request.getfixturevalue(which)
    before = written(root)

    done = run("index", photographs, "-c", root, "--preset", "default")

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: {root} was made with preset 'thesis', not 'default': "
        "use the collection's own, or index into a new directory"
    ]
    assert written(root) == before


def test_without_a_descriptor_what_and_where_is_asked_where_nothing_is_fused(thesis: Path) -> None:
    """By the server, and by the command on a collection; the fused is named as missing."""
    with client_of(thesis) as client:
        unnamed, named, what = (
            client.search(QUERY_PHOTOGRAPH, descriptor=name).hits for name in (None, "what-and-where", "what")
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
            found.append(client.search(QUERY_PHOTOGRAPH, descriptor="what-and-where").hits)

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
