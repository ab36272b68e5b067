"""Answers from a collection opened here and from a server of it: the same, and the same errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import QUERY_PHOTOGRAPH
from whatwhere.indexer.images.limits import UPLOAD_LIMITS
from whatwhere.service import cli

pytestmark = pytest.mark.usefixtures("one_thread")

REGION = ("--region", "90,100,690,455px")
QUERY = str(QUERY_PHOTOGRAPH)
MANY_REGIONS = tuple(part for _ in range(17) for part in ("--region", "0.1,0.1,0.5,0.5"))


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"})


def flattened(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of a JSON value by their paths."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: leaf for key, part in parts for path, leaf in flattened(part, f"{name}/{key}").items()}
    return {name: value}


def assert_close(found: Any, expected: Any) -> None:
    """Compare two JSON values, numbers to 1e-5."""
    theirs, ours = flattened(expected), flattened(found)
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        if isinstance(value, float):
            assert ours[path] == pytest.approx(value, abs=1e-5), path
        else:
            assert ours[path] == value, path


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", QUERY, *REGION, "--localize", "3", "--top", "4"),
        ("search", QUERY, "--localize", "2", "--exact"),
        ("search", "images/1", "--factor", "0", "--factor", "2", "--localize", "2", "--expand", "2"),
        ("search", "images/2", "--avoid", "1", "--descriptor", "what", "--min-score", "0.01"),
        ("search", "images/2", "--filter", "width_px > 400"),
        ("explain", "images/3"),
        ("explain", QUERY),
        ("compare", "images/3", "images/1", "--rank", "4"),
        ("compare", QUERY, "images/1", "images/2"),
    ],
    ids=lambda arguments: " ".join(Path(text).name for text in arguments),
)
def test_a_collection_answers_as_its_server(arguments: tuple[str, ...], collection: Path, server: str) -> None:
    """Images, boxes, scores and shares, in JSON and in the table."""
    here, there = ("--collection", str(collection)), ("--server", server)

    by_collection, by_server = (run(*arguments, *source, "--json") for source in (here, there))
    tables = [run(*arguments, *source).stdout for source in (here, there)]

    assert (by_collection.exit_code, by_server.exit_code) == (0, 0), (by_collection.exception, by_server.exception)
    assert_close(json.loads(by_collection.stdout), json.loads(by_server.stdout))
    assert tables[0] == tables[1]
    assert tables[0].count("\n") > 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "images/1", "--factor", "99"),
        ("search", "images/1", *MANY_REGIONS),
        ("search", "images/1", "--descriptor", "gem"),
        ("search", "images/1", "--filter", "label ="),
        ("search", "images/999"),
        ("explain", "images/999"),
        ("compare", "images/1", *(["images/2"] * 17)),
    ],
    ids=lambda arguments: " ".join(arguments[:4]),
)
def test_both_refuse_the_same(arguments: tuple[str, ...], collection: Path, server: str) -> None:
    """By the same error, in the same words."""
    refused = [run(*arguments, *source) for source in (("--collection", str(collection)), ("--server", server))]

    here, there = (result.exception for result in refused)
    assert (type(here), str(here)) == (type(there), str(there))
    assert here is not None
    assert not isinstance(here, SystemExit)


def test_a_server_named_by_the_variable_explains_stored_images(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are described here nevertheless: the variable alone sends nothing away."""
    monkeypatch.setenv("WHATWHERE_SERVER", "127.0.0.1:1")
    file = run("explain", QUERY, "--rank", "2", "--json")
    monkeypatch.setenv("WHATWHERE_SERVER", server)
    stored = run("explain", "images/3", "--json")

    assert [entry["rank"] for entry in json.loads(file.stdout)["ranks"]] == [2]
    assert json.loads(stored.stdout)["image"] == "images/3"


def test_what_a_server_explains_is_drawn(server: str, tmp_path: Path) -> None:
    """Its heatmaps over the stored image's file."""
    for name, arguments in {"why.png": ("explain", "images/3"), "common.png": ("compare", QUERY, "images/1")}.items():
        result = run(*arguments, "--server", server, "--picture", str(tmp_path / name))

        assert result.exit_code == 0, result.exception
        with Image.open(tmp_path / name) as drawn:
            assert drawn.width > 500


def test_a_file_as_large_as_an_indexed_one_is_asked_about_here(collection: Path, server: str, tmp_path: Path) -> None:
    """A server bounds uploads, so that nobody waits too long behind one; here there is nobody else."""
    large = tmp_path / "large.bmp"
    with Image.open(QUERY) as picture:
        picture.convert("RGB").resize((3600, 3200)).save(large)
    assert large.stat().st_size > UPLOAD_LIMITS.max_bytes

    here, there = (
        run("search", str(large), "-c", str(collection), "--json"),
        run("search", str(large), "--server", server),
    )

    assert json.loads(here.stdout)["hits"][0]["uri"].endswith("motorcycle_right.png")
    assert there.exit_code == 1
    assert f"the limit is {UPLOAD_LIMITS.max_bytes:,}" in str(there.exception)
