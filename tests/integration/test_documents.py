"""The quick start and the Python examples of the documents, run as they are written there."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.check_docs import ROOT, commands
from tests.conftest import QUERY_PHOTOGRAPH

WRITTEN_ADDRESS = "127.0.0.1:50051"  # in the documents


def blocks(document: str, heading: str, language: str) -> list[str]:
    """Return the blocks of a language under a heading, down to the next one."""
    tokens = MarkdownIt("commonmark").parse((ROOT / document).read_text())
    found, inside = [], False
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            inside = token.content == heading
        elif inside and token.type == "fence" and token.info == language:
            found.append(token.content)
    return found


@contextmanager
def reader(folder: Path, photographs: Path) -> Iterator[None]:
    """Stand where a reader of the quick start stands: at home, with photographs and a picture to search by."""
    (folder / "Pictures").symlink_to(photographs)
    shutil.copy(QUERY_PHOTOGRAPH, folder / "bike.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder))
        yield


def run(words: list[str], server: str) -> None:
    """Run a command of the documents in this process, by the program's own parser; the server is the test's."""
    from whatwhere.service.cli import app  # noqa: PLC0415 - the collection that it makes is what takes the time

    given = [os.path.expanduser(word).replace(WRITTEN_ADDRESS, server) for word in words[1:]]
    app(given, standalone_mode=False)


def test_the_quick_start_does_what_it_says(
    tmp_path: Path, photographs: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line of it runs, in order; the server of its fourth is the one that the tests have already started."""
    (block,) = blocks("README.md", "Quick start", "console")
    lines = [words for words in commands(block) if words]

    with reader(tmp_path, photographs):
        for words in lines:
            if words[1] != "serve":
                run([word.replace("images/12", "images/1") for word in words], server)

    assert [words[1] for words in lines] == ["index", "search", "explain", "serve", "search"]
    assert (tmp_path / "answer.png").stat().st_size > 10_000
    assert (tmp_path / "factors.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    answer = json.loads(printed[printed.index("{\n") :])
    (documented,) = map(json.loads, blocks("service/README.md", "Search from the shell", "json"))
    assert answer.keys() == documented.keys()
    assert answer["hits"][0].keys() == documented["hits"][0].keys()


@pytest.mark.parametrize(
    ("document", "heading"), [("README.md", "Quick start"), ("service/README.md", "Search from Python")]
)
def test_the_python_example_finds_the_other_view(
    document: str, heading: str, tmp_path: Path, photographs: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the score, the name, the address and the box of each result, the motorbike's other view first."""
    example = blocks(document, heading, "python")[0].replace(WRITTEN_ADDRESS, server)

    with reader(tmp_path, photographs):
        exec(compile(example, document, "exec"), {})

    first = capsys.readouterr().out.splitlines()[0]
    assert "motorcycle_right.png" in first
    assert "Box(" in first


def test_the_example_of_indexing_makes_a_collection(
    tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the first generation, its number of images, and no failure."""
    (example,) = blocks("indexer/README.md", "Index a folder", "python")

    with reader(tmp_path, photographs):
        (tmp_path / "photographs").symlink_to(photographs)
        exec(compile(example, "indexer/README.md", "exec"), {})

    assert capsys.readouterr().out.split() == ["1", "8", "0"]
    assert (tmp_path / "pictures.ww" / "CURRENT").is_file()
