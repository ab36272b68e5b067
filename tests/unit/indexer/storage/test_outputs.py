"""What a person asks to be written replaces no input, and another file only if that was asked for, too."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.storage.outputs import Output


def put(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def test_a_new_file_is_written(tmp_path: Path) -> None:
    """And nothing else is left in the folder."""
    Output(tmp_path / "a.txt").write(put("new"))

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "new")]


def test_a_file_that_exists_is_replaced_only_when_asked(tmp_path: Path) -> None:
    """It is refused before the work begins, and when it has appeared meanwhile."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    for refused in (Output(path).check, lambda: Output(path).write(put("new"))):
        with pytest.raises(InvalidRequest, match=r"a\.txt: exists: give another name, or replace it with --overwrite"):
            refused()
    assert path.read_text() == "old"
    Output(path, overwrite=True).write(put("new"))
    assert path.read_text() == "new"


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Half a file is never seen."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("ha")
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        Output(path, overwrite=True).write(fail)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    """Another name of the old file keeps it."""
    (tmp_path / "a").write_text("old")
    (tmp_path / "symbolic").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "hard")

    Output(tmp_path / "symbolic", overwrite=True).write(put("new"))

    assert (tmp_path / "symbolic").is_symlink()
    assert [(tmp_path / name).read_text() for name in ("a", "symbolic", "hard")] == ["new", "new", "old"]


def test_an_input_is_spared_by_every_name(tmp_path: Path) -> None:
    """Even if a file was to be replaced: the same file, a link to it, a file of a folder that is read."""
    (tmp_path / "photos").mkdir()
    read = tmp_path / "photos" / "a.png"
    read.write_text("photograph")
    (tmp_path / "symbolic.png").symlink_to(read)
    os.link(read, tmp_path / "hard.png")
    (tmp_path / "folder").symlink_to(tmp_path / "photos")
    (tmp_path / "other.png").write_text("other")
    names = (read, tmp_path / "symbolic.png", tmp_path / "hard.png", tmp_path / "folder" / "a.png")

    for path in names:
        with pytest.raises(InvalidRequest, match="is the same file as"):
            Output(path, overwrite=True).spare([tmp_path / "absent", read])
    for path in names[:2]:
        with pytest.raises(InvalidRequest, match="is a file of"):
            Output(path, overwrite=True).spare([tmp_path / "photos"])
    Output(tmp_path / "other.png", overwrite=True).spare([read, tmp_path / "photos"])
    Output(tmp_path / "photos" / "new.png").spare([tmp_path / "photos"])


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """/dev/stdout and /dev/null: renaming a file to their place would break them for everybody."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    Output(tmp_path / "pipe").write(put("new"))

    assert os.read(reader, 100) == b"new"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    Output(Path("/dev/null")).write(put("new"))
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    ("name", "words"), [("", "is a directory: give a file name"), ("no/a.txt", "its directory does not exist")]
)
def test_what_cannot_be_written_is_named_at_once(name: str, words: str, tmp_path: Path) -> None:
    """Before minutes of work."""
    with pytest.raises(InvalidRequest, match=words):
        Output(tmp_path / name, overwrite=True).check()
