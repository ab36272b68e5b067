"""Spellings of one place: what people read, what they type, and what is stored."""

import os
from pathlib import Path

import pytest

from whatwhere.indexer.storage.files import file_named, path_of_uri
from whatwhere.indexer.storage.readable import absolute_place, readable, readable_if_other, spellings

COMPOSED, DECOMPOSED = "M\u00fcller", "Mu\u0308ller"


@pytest.mark.parametrize(
    ("uri", "read"),
    [
        ("file:///a/b.jpg", "file:///a/b.jpg"),
        ("file:///My%20Pictures/x%40y%231%3F.jpg", "file:///My Pictures/x@y#1?.jpg"),
        ("file:///M%C3%BCller", f"file:///{COMPOSED}"),
        ("file:///Mu%CC%88ller", f"file:///{COMPOSED}"),
        ("file:///100%25.jpg", "file:///100%.jpg"),
        ("file:///%FF.jpg", "file:///\ufffd.jpg"),
        ("https://host/a%20b.jpg", "https://host/a b.jpg"),
        ("https://host/a%00b.jpg", "https://host/a%00b.jpg"),
        ("s3://bucket/a%20b.jpg", "s3://bucket/a%20b.jpg"),
        (f"s3://bucket/{DECOMPOSED}", f"s3://bucket/{COMPOSED}"),
    ],
)
def test_a_uri_is_read_decoded_and_in_one_form(uri: str, read: str) -> None:
    """Names of object stores are stored as they are; a NUL, which no database stores, stays encoded."""
    assert readable(uri) == read
    assert readable_if_other(uri) == (None if read == uri else read)


@pytest.mark.parametrize(
    "name", ["a b.jpg", "x@y#1?.jpg", COMPOSED, DECOMPOSED, "100%.jpg", "50%20off.jpg", "[1]*.jpg", "\u65e5\u672c"]
)
def test_every_spelling_of_a_file_means_it(name: str, tmp_path: Path) -> None:
    """Its path, its URI as it is stored, and its URI as somebody types it."""
    path = tmp_path / name
    path.touch()

    for text in (str(path), path.as_uri(), f"file://{path}", f"file://localhost{path}"):
        assert readable(path.as_uri()) in spellings(text), text
    for text in (str(path), path.as_uri(), f"file://{path}"):
        assert file_named(text) == path, text
    assert path_of_uri(path.as_uri()) == path


def test_other_files_are_not_meant() -> None:
    """A percent sign in a path can be its own, or an encoding: nothing else is meant."""
    assert spellings("/a/50%20off") == ("file:///a/50%20off", "file:///a/50 off")
    assert spellings("/a/b") == ("file:///a/b",)
    assert spellings("/a/b", anchored=False) == ("/a/b",)
    assert spellings("s3://b/c") == ("s3://b/c",)


def test_relative_paths_begin_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns that begin anywhere, and URIs, are no relative paths."""
    monkeypatch.chdir(tmp_path)

    assert absolute_place("new/a b.jpg") == f"{tmp_path}/new/a b.jpg"
    assert absolute_place("./new/../x") == f"{tmp_path}/x"
    assert absolute_place("new/") == f"{tmp_path}/new/"
    assert absolute_place("~/x") == f"{os.path.expanduser('~')}/x"
    for text in ("", "*", "*/private/*", "/", "/a/b", "file:///a", "s3://b/c*"):
        assert absolute_place(text) == text
