"""Files that are never half there, and paths that survive the way through a URI."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.indexer.storage.files import path_of_uri, printable, sha256_of, sync, system_error, write_durably


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set an umask for the test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _fail_half_way(temporary: Path) -> None:
    temporary.write_text("half")
    raise OSError("no space left")


def test_the_written_file_has_the_content(tmp_path: Path) -> None:
    """What the writer wrote stands under the final name, and nothing stands beside it."""
    path = tmp_path / "file"

    write_durably(path, lambda temporary: temporary.write_text("whole"))

    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_the_final_name_appears_only_when_the_writer_is_done(tmp_path: Path) -> None:
    """A reader during the write sees the old file, whole."""
    path = tmp_path / "file"
    path.write_text("old")
    seen: list[str] = []

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        seen.append(path.read_text())
        temporary.write_text("new")

    write_durably(path, write)

    assert seen == ["old"]
    assert path.read_text() == "new"


def test_bytes_are_on_the_disk_before_their_name_and_the_name_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves the old file or the new one, whole."""
    done: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        done.append(("replace", target.name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)

    write_durably(tmp_path / "file", lambda temporary: temporary.write_text("new"))

    assert done == [("fsync", ".file.tmp"), ("replace", "file"), ("fsync", tmp_path.name)]


def test_a_writer_that_raises_leaves_no_file(tmp_path: Path) -> None:
    """The final name does not appear, and the error passes through."""
    path = tmp_path / "file"

    with pytest.raises(OSError, match="no space left"):
        write_durably(path, _fail_half_way)

    assert not path.exists()


def test_a_writer_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    """The content from before stays."""
    path = tmp_path / "file"
    path.write_text("old")

    with pytest.raises(OSError, match="no space left"):
        write_durably(path, _fail_half_way)

    assert path.read_text() == "old"


def test_what_a_failed_write_left_does_not_reach_the_next_one(tmp_path: Path) -> None:
    """A writer that appends starts from an empty file, even after a crash, and the remains are gone afterwards."""
    path = tmp_path / "file"
    with pytest.raises(OSError, match="no space left"):
        write_durably(path, _fail_half_way)

    def append(temporary: Path) -> None:
        with temporary.open("a") as file:
            file.write("whole")

    write_durably(path, append)

    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("own_mode", [None, 0o600], ids=["as created", "made private by its writer"])
def test_the_mode_follows_the_umask(tmp_path: Path, umask: int, own_mode: int | None) -> None:
    """A file that others may read by the umask can be read by them, whatever mode its writer left."""
    path = tmp_path / "file"

    def write(temporary: Path) -> None:
        temporary.write_text("whole")
        if own_mode is not None:
            temporary.chmod(own_mode)

    write_durably(path, write)

    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_the_mode_follows_the_umask_where_the_writer_replaces_the_file(tmp_path: Path, umask: int) -> None:
    """A writer may itself write beside and rename."""
    path = tmp_path / "file"

    def write(temporary: Path) -> None:
        beside = tmp_path / "beside"
        beside.write_text("whole")
        beside.chmod(0o600)
        beside.replace(temporary)

    write_durably(path, write)

    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_sync_takes_files_and_directories(tmp_path: Path) -> None:
    """Both can be flushed; what is absent is an error."""
    path = tmp_path / "file"
    path.write_text("whole")

    sync(path)
    sync(tmp_path)

    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "absent")


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    """The published value for "abc", and the standard library's for a file of several blocks."""
    short, long = tmp_path / "short", tmp_path / "long"
    short.write_bytes(b"abc")
    long.write_bytes(bytes(range(256)) * 5000)

    assert sha256_of(short) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(long) == hashlib.sha256(long.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        b"plain.jpg",
        b"with space.jpg",
        b"100%.jpg",
        b"100%25.jpg",
        b"a#b?c=d&e;f.jpg",
        "Zürich 東京.jpg".encode(),
        b"latin1-\xfcmlaut.jpg",
        b"\xff\xfe",
        b"new\nline\ttab.jpg",
        b"back\\slash:colon.jpg",
        b"[brackets]@host",
    ],
)
def test_a_path_survives_the_way_through_a_uri(tmp_path: Path, name: bytes) -> None:
    """Percent signs, spaces, line breaks and bytes that are not UTF-8 lead to the same file again."""
    path = tmp_path / os.fsdecode(name)
    path.write_text("here")

    returned = path_of_uri(path.as_uri())

    assert returned == path
    assert returned.read_text() == "here"


@given(st.binary(min_size=1, max_size=40).filter(lambda name: not {0, ord("/")} & set(name)))
def test_every_name_survives_the_way_through_a_uri(name: bytes) -> None:
    """Linux allows every byte but NUL and the slash."""
    path = Path("/photographs") / os.fsdecode(name)

    assert path_of_uri(path.as_uri()) == path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain \xc3\xa9 [b].jpg", "plain é [b].jpg"),
        (b"not-\xff-utf-8.jpg", "not-\ufffd-utf-8.jpg"),
        (b"two\nlines.jpg", "two\\nlines.jpg"),
        (b"\x1b[31mred.jpg", "\\x1b[31mred.jpg"),
        ("\u202egnp.jpg".encode(), "\\u202egnp.jpg"),
    ],
)
def test_a_name_is_printed_on_one_line_and_commands_no_terminal(name: bytes, text: str) -> None:
    """Line ends, escapes and marks that turn the direction of writing are spelt out."""
    assert printable(Path(os.fsdecode(b"/some/folder/" + name))) == text


@pytest.mark.parametrize(
    ("message", "number"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ("write error in x: 12206 != 16384 (No space left on device)", errno.ENOSPC),
        ("could not open x for writing: Read-only file system", errno.EROFS),
        ("something else", None),
    ],
)
def test_a_library_s_message_becomes_an_error_of_the_system(message: str, number: int | None) -> None:
    """The number and the file are there where the message tells them, else the message."""
    error = system_error(message, Path("/c.ww/file"))

    assert error.errno == number
    assert "/c.ww/file" in str(error)
