"""Files of people are read within a limit, and anything but a file is refused before a byte is read."""

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from whatwhere.indexer.errors import (
    BenchmarkUnreadable,
    CredentialsUnreadable,
    ImageTooManyBytes,
    InvalidRequest,
    UnreadableImage,
    WhatwhereError,
)
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.metadata.sidecars import read_sidecar
from whatwhere.indexer.metadata.tables import read_table
from whatwhere.indexer.sources.lists import ImageList
from whatwhere.indexer.sources.local import read_file
from whatwhere.indexer.sources.remote import Remote
from whatwhere.indexer.storage.bounded import FileTooLarge, NotAFile, bounded_lines, open_bounded, read_bounded
from whatwhere.service.cli.connection import Connection
from whatwhere.service.client.requests import search_request
from whatwhere.service.evaluation.retrieval.sources import read_bytes
from whatwhere.service.local.search import Question, ask
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.security.tls import channel_credentials
from whatwhere.service.security.tokens import read_tokens

TERA = 10**12


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    """The limit itself is allowed; one byte more is named with both numbers."""
    (tmp_path / "a").write_bytes(b"x" * 1000)

    assert read_bounded(tmp_path / "a", 1000) == b"x" * 1000
    with pytest.raises(FileTooLarge, match="1,000 bytes, the limit is 999"):
        read_bounded(tmp_path / "a", 999)


def test_a_file_that_grows_while_it_is_read_is_refused() -> None:
    """The kernel's file of a process's memory map reports size 0; what it reports is believed."""
    assert read_bounded(Path("/proc/self/maps"), 10) == b""


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "device"])
def test_what_is_no_file_is_named_and_not_opened(kind: str, tmp_path: Path) -> None:
    """Opening a pipe would wait for a writer, and wake one up."""
    place = tmp_path / kind
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "socket":
            listening.bind(str(place))
        elif kind == "directory":
            place.mkdir()
        else:
            place = Path("/dev/zero")

        with pytest.raises(NotAFile, match=f"is a {kind}, not a regular file"):
            open_bounded(place, TERA)


def test_a_pipe_that_takes_the_files_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the opening: it is not waited for."""
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    looked = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda path: looked)

    with pytest.raises(NotAFile, match="is a pipe"):
        open_bounded(tmp_path / "pipe", TERA)


def test_lines_are_bounded() -> None:
    """Of bytes and of text; a line of the limit is allowed, line end included."""
    assert list(bounded_lines(io.BytesIO(b"abc\nd"), 4)) == [b"abc\n", b"d"]
    assert list(bounded_lines(io.StringIO("é\n\nd"), 4)) == ["é\n", "\n", "d"]
    with pytest.raises(FileTooLarge, match="line 2 is longer than 3"):
        list(bounded_lines(io.BytesIO(b"ab\nabc\n"), 3))


def query(path: Path) -> object:
    return ask(Question(str(path)), None)  # type: ignore[arg-type] # the file is read first


def test_every_reader_of_a_persons_file_refuses_a_pipe_and_a_file_without_end(tmp_path: Path) -> None:
    """Without waiting, and without reading: the sparse file has a terabyte."""
    readers: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
        "image": (lambda path: read_file(path, ImageLimits()), WhatwhereError),
        "query": (query, WhatwhereError),
        "client": (lambda path: search_request(path, SearchOptions()), OSError),
        "metadata.csv": (read_table, InvalidRequest),
        "metadata.jsonl": (read_table, InvalidRequest),
        "list.txt": (lambda path: list(ImageList.at(path, "list", Remote()).entries()), InvalidRequest),
        "list.csv": (lambda path: list(ImageList.at(path, "list", Remote()).entries()), InvalidRequest),
        "list.parquet": (lambda path: list(ImageList.at(path, "list", Remote()).entries()), InvalidRequest),
        "a.jpg.json": (read_sidecar, InvalidRequest),
        "tokens": (read_tokens, CredentialsUnreadable),
        "token": (lambda path: Connection("localhost:1", token_file=path).open(), CredentialsUnreadable),
        "ca": (lambda path: channel_credentials(path, None, None), CredentialsUnreadable),
        "truth": (read_bytes, BenchmarkUnreadable),
    }
    (tmp_path / "pipe").mkdir()
    (tmp_path / "endless").mkdir()
    for name, (read, error) in readers.items():
        os.mkfifo(tmp_path / "pipe" / name)
        with pytest.raises(error, match="is a pipe, not a regular file"):
            read(tmp_path / "pipe" / name)
        with (tmp_path / "endless" / name).open("wb") as file:
            file.truncate(TERA)
        with pytest.raises(error, match="1,000,000,000,000 bytes, the limit is"):
            read(tmp_path / "endless" / name)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_a_table_of_one_endless_line_is_refused(name: str, tmp_path: Path) -> None:
    """A sparse file within the limit is one line of zeros."""
    with (tmp_path / name).open("wb") as file:
        file.truncate(10**9)

    with pytest.raises(InvalidRequest, match="line 1 is longer than 16,777,216"):
        list(ImageList.at(tmp_path / name, name, Remote()).entries())


def test_an_image_keeps_its_own_errors(tmp_path: Path) -> None:
    """Their reasons are what a run records."""
    (tmp_path / "a.jpg").write_bytes(b"x" * 11)

    with pytest.raises(ImageTooManyBytes, match=r"a\.jpg: 11 bytes, the limit is 10"):
        read_file(tmp_path / "a.jpg", ImageLimits(max_bytes=10))
    with pytest.raises(UnreadableImage, match="is a directory"):
        read_file(tmp_path, ImageLimits())
