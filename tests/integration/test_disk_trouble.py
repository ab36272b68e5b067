"""A full disk, a read-only one, a second writer: a sentence and exit code 1, and nothing that was kept is lost."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import commands
from tests.killing import children
from tests.killing.children import Request
from tests.killing.collections import answers, contents, faults
from tests.killing.kills import Harness, differences
from tests.killing.situations import Situation
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import INDEXED
from whatwhere.indexer.collection.layout import Layout

pytestmark = pytest.mark.takes(150)

DISK_MB = 6
# Free kilobytes, chosen so that the disk is full at the first byte, in a shard, in the catalogue, in whiteners or
# vectors, in the manifest.
FULL = (
    *(("first run", free) for free in (0, 8, 64, 360, 600)),
    *(("later run", free) for free in (0, 8, 24, 88, 112, 184)),
    *(("removal", free) for free in (0, 8, 16)),
    *(("compaction", free) for free in (0, 24, 88)),
)
READING = (("info",), ("images",), ("verify",), ("search", "images/2"))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a small disk of its own."""
    point = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", point], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    yield point
    subprocess.run(["umount", point], check=True)


@pytest.fixture
def root(disk: Path) -> Iterator[Path]:
    """Give the place of a collection on the disk, which is empty."""
    yield disk / "c.ww"
    shutil.rmtree(disk / "c.ww")


@contextmanager
def filled(disk: Path, free_kb: int) -> Iterator[None]:
    """Leave only so much room."""
    status = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(status.f_bavail * status.f_bsize - free_kb * 1024))
    try:
        yield
    finally:
        (disk / "ballast").unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Let nothing be written."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


def run(arguments: tuple[str, ...], root: Path, scratch: Path) -> tuple[int, list[str]]:
    """Run a command on a collection and return its exit code and what it printed, the logged failures left out."""
    output = scratch / "output"
    output.unlink(missing_ok=True)
    code = children.run(Request((*arguments, "--collection", str(root)), str(output)))
    return code, [line for line in output.read_text().splitlines() if not line.startswith("WARNING")]


def refusal(code: int, lines: list[str]) -> str:
    """Return the sentence of a command that ended with a named error."""
    assert code == 1, lines
    found = [line for line in lines if line.startswith("error: ")]
    assert lines[-1:] == found, lines
    assert not any(line.startswith(("Traceback", "  File ")) for line in lines)
    return found[0].removeprefix("error: ")


def placed(situation: Situation, root: Path) -> None:
    """Lay the collection that a situation begins with."""
    if situation.before is not None:
        shutil.copytree(situation.before, root)


def as_before(situation: Situation, root: Path) -> bool:
    """Tell whether the old generation, where there was one, answers as it did, or else the new one."""
    if situation.before is None:
        return not Layout(root).current.exists()
    number, found = answers(root)
    return found == (situation.answers_before if number == situation.generation_before else situation.answers_after)


@pytest.mark.parametrize(("name", "free_kb"), FULL)
def test_a_full_disk_is_a_sentence_and_loses_nothing(
    harness: Harness, disk: Path, root: Path, tmp_path: Path, name: str, free_kb: int
) -> None:
    """The collection answers as before and verifies; when there is room again, the command comes to the same end."""
    situation = harness.situations[name]
    placed(situation, root)

    with filled(disk, free_kb):
        sentence = refusal(*run(situation.arguments, root, tmp_path))
        answered = as_before(situation, root)
    found = faults(root) if root.exists() else []
    again, lines = run(situation.arguments, root, tmp_path)

    assert re.fullmatch(r"\S.* cannot be (written|created) \(.+\): (free disk space|choose a writable) .*", sentence)
    assert len(sentence) < 300
    assert (answered, found) == (True, [])
    assert again == 0, lines
    assert differences(situation.contents_after, contents(root)) == []


@pytest.mark.parametrize("name", ["later run", "removal", "compaction"])
def test_a_read_only_disk_is_a_sentence_and_loses_nothing(
    harness: Harness, disk: Path, root: Path, tmp_path: Path, name: str
) -> None:
    """What writes is refused with the remedy; when writing is allowed again, it comes to the same end."""
    situation = harness.situations[name]
    placed(situation, root)
    before = contents(root)

    with read_only(disk):
        sentence = refusal(*run(situation.arguments, root, tmp_path))
        kept = differences(before, contents(root))
    again, lines = run(situation.arguments, root, tmp_path)

    assert "Read-only file system" in sentence
    assert sentence.partition("): ")[2].startswith("free disk space or grant write permission")
    assert kept == []
    assert again == 0, lines
    assert differences(situation.contents_after, contents(root)) == []


def test_a_collection_on_a_read_only_disk_can_be_read(harness: Harness, disk: Path, root: Path, tmp_path: Path) -> None:
    """Also where no reader left files beside the catalogue before the disk became read-only."""
    placed(harness.situations["removal"], root)
    for path in root.glob("catalog.db-*"):
        path.unlink()

    with read_only(disk):
        codes = {command: run(command, root, tmp_path)[0] for command in READING}
        found = answers(root)[1]

    assert codes == dict.fromkeys(READING, 0)
    assert found == harness.situations["removal"].answers_before


@pytest.mark.parametrize("log", ["absent", "empty"])
def test_a_collection_on_a_full_disk_can_be_read(
    harness: Harness, disk: Path, root: Path, tmp_path: Path, log: str
) -> None:
    """SQLite's files beside the catalog cannot be created; when there is room again, changes are seen."""
    placed(harness.situations["removal"], root)
    for path in root.glob("catalog.db-*"):
        path.unlink()
    if log == "empty":
        (root / "catalog.db-wal").touch()

    with filled(disk, 0):
        codes = {command: run(command, root, tmp_path)[0] for command in READING}
        found = answers(root)[1]
        with Catalog.open(Layout(root).catalog) as reader:
            before = reader.images_by_id([1])[1].state
            (disk / "ballast").write_bytes(b"")
            assert commands.run("remove", "1", "--collection", root).returncode == 0
            after = reader.images_by_id([1])[1].state

    assert codes == dict.fromkeys(READING, 0)
    assert found == harness.situations["removal"].answers_before
    assert (before, after) == ("indexed", "removed")


def test_a_new_collection_on_a_read_only_disk_is_a_sentence(harness: Harness, disk: Path, tmp_path: Path) -> None:
    """Nothing is made, and the message says where."""
    arguments = harness.situations["first run"].arguments

    with read_only(disk):
        sentence = refusal(*run(arguments, disk / "new.ww", tmp_path))

    assert sentence.startswith(f"{disk / 'new.ww'} cannot be created (Read-only file system): choose a writable")
    assert not (disk / "new.ww").exists()


# --- two writers ------------------------------------------------------------------------------------------------


@pytest.fixture
def halted(harness: Harness, tmp_path: Path) -> Iterator[tuple[commands.Process, Path]]:
    """Give a run that holds a collection, halted in the middle of its work, and the collection."""
    situation = harness.situations["later run"]
    root = tmp_path / "held.ww"
    placed(situation, root)
    with commands.start(*situation.arguments, "--collection", root) as process:
        while Layout(root).lock.read_text().split(" ")[0] != str(process.pid) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        yield process, root
        process.kill()


def test_a_second_writer_is_refused_while_readers_read(
    harness: Harness, halted: tuple[commands.Process, Path], tmp_path: Path
) -> None:
    """The message names the first one's process; a reader has the old generation; the first one ends as undisturbed."""
    first, root = halted
    situation = harness.situations["later run"]

    sentences = [
        refusal(*run(arguments, root, tmp_path))
        for arguments in (situation.arguments, ("remove", "1"), ("compact",), ("verify",))
    ]
    read = answers(root)
    with Catalog.open(Layout(root).catalog) as catalog:
        listed = len(catalog.images(state=INDEXED))
    first.send_signal(signal.SIGCONT)
    first.wait(60)

    holder = f"{root} is being written to by process {first.pid}: wait until that ends, then run again"
    assert sentences == [holder] * 4
    assert read == (situation.generation_before, situation.answers_before)
    assert listed > 0
    assert first.returncode == 0
    assert answers(root)[1] == situation.answers_after


def test_what_is_read_only_from_here_may_be_written_elsewhere(collection: Path, tmp_path: Path) -> None:
    """A reader of a read-only mount, such as a container's, sees what is written beside it, and never half of it."""
    written, seen = tmp_path / "written", tmp_path / "seen"
    shutil.copytree(collection, written, ignore=shutil.ignore_patterns("catalog.db-*"))  # as nobody has it open
    seen.mkdir()
    mounted = subprocess.run(["mount", "--bind", written, seen], check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a folder cannot be mounted here: {mounted.stderr.strip()}")
    states = []
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", seen], check=True)
        with Catalog.open(Layout(seen).catalog) as reader:
            for number in (1, 2, 3):
                before = reader.images_by_id([number])[number].state
                # A process of its own: SQLite shares what it knows of a file among all connections of one.
                assert commands.run("remove", str(number), "--collection", written).returncode == 0
                states.append((before, reader.images_by_id([number])[number].state))
    finally:
        subprocess.run(["umount", seen], check=True)

    assert states == [("indexed", "removed")] * 3
