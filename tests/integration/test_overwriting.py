"""Commands that write a picture or a report: photographs are never replaced, other files only when asked."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import QUERY_PHOTOGRAPH
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.storage.outputs import Output
from whatwhere.service import cli
from whatwhere.service.local.originals import spare_stored
from whatwhere.service.results import StoredImage

pytestmark = pytest.mark.usefixtures("one_thread")

COMMANDS = {
    "search": ("search", "{image}", "--top", "2"),
    "explain": ("explain", "{image}"),
    "compare": ("compare", "{image}", "images/1"),
}


def run(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def refused(words: str, result: Result) -> None:
    assert result.exit_code == 1
    assert words in str(result.exception)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("source", ["collection", "server"])
def test_a_picture_replaces_no_photograph(
    command: str, source: str, collection: Path, server: str, tmp_path: Path
) -> None:
    """The query, a link to it, and for a collection a copy of an indexed original; all with --overwrite."""
    query = Path(shutil.copy(QUERY_PHOTOGRAPH, tmp_path / "query.png"))
    os.link(query, tmp_path / "link.png")
    before = query.read_bytes()
    asked = [part.format(image=query) for part in COMMANDS[command]]
    asked += ["--collection", str(collection)] if source == "collection" else ["--server", server]

    for path in (query, tmp_path / "link.png"):
        refused("is the same file as", run(*asked, "--picture", path, "--overwrite"))
        refused("exists: give another name", run(*asked, "--picture", path))
    if source == "collection":
        copied = shutil.copy(QUERY_PHOTOGRAPH.with_name("motorcycle_right.png"), tmp_path / "copy.png")
        refused("is an indexed image", run(*asked, "--picture", copied, "--overwrite"))
    assert query.read_bytes() == (tmp_path / "link.png").read_bytes() == before


def test_a_picture_replaces_an_earlier_one_when_asked(collection: Path, tmp_path: Path) -> None:
    """And not otherwise."""
    asked = ("search", "images/1", "-c", collection, "--top", "1", "--picture", tmp_path / "answer.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "answer.png")

    refused("exists: give another name, or replace it with --overwrite", run(*asked))
    assert run(*asked, "--overwrite").exit_code == 0

    with Image.open(tmp_path / "answer.png") as drawn:
        assert drawn.width > 100


def test_files_of_results_are_spared(tmp_path: Path) -> None:
    """A server is not asked for all its originals; those of the answer are known."""
    shutil.copy(QUERY_PHOTOGRAPH, tmp_path / "a.png")
    uris = ("s3://bucket/a.png", (tmp_path / "a.png").as_uri())
    image = StoredImage("images/1", uris, 40, 30, 1, "image/png", "", datetime(2026, 1, 1, tzinfo=UTC))

    with pytest.raises(InvalidRequest, match="is the same file as"):
        spare_stored(Output(tmp_path / "a.png", overwrite=True), [image])


def test_an_evaluation_replaces_no_photograph_of_its_data_set(tmp_path: Path) -> None:
    """It is refused before features are computed."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"photograph")
    asked = ("evaluate", "folders", "--images", tmp_path / "images", "--overwrite")

    for option in ("--picture", "--json", "--markdown"):
        refused("is a file of", run(*asked, option, tmp_path / "images" / "a.png"))
    assert run(*asked, "--json", tmp_path / "a", "--markdown", tmp_path / "a").exit_code == 2


def test_the_demonstration_removes_only_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder of that name stays."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path)

    refused("is not of an earlier demonstration", run("demo"))

    assert (tmp_path / "demo" / "thesis.txt").exists()
