"""One writer beside many readers, in real processes: WAL, busy timeout and foreign keys do what they are set for."""

import multiprocessing
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from tests.cataloguing import described, keep, raw, source
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.database import BUSY_TIMEOUT_S, CatalogAddress
from whatwhere.indexer.catalog.records import INDEXED, Outcome, ShardRecord
from whatwhere.indexer.catalog.sqlite import connect
from whatwhere.indexer.errors import CollectionNotWritable
from whatwhere.indexer.metadata.filters import parse

CHUNK = 16
SPAWN = multiprocessing.get_context("spawn")  # as processes meet in life: nothing shared but the file


@pytest.fixture
def filled(address: CatalogAddress) -> CatalogAddress:
    """Give the address of a catalogue of one chunk."""
    with Catalog.create(address) as catalog:
        record(catalog, 0)
    return address


@pytest.fixture
def path(filled: CatalogAddress) -> Path:
    """Give the path of the same: who asks for it speaks of the SQLite file."""
    assert isinstance(filled, Path)
    return filled


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Give processes of their own, which keep nothing from one test to the next."""
    with ProcessPoolExecutor(3, mp_context=SPAWN) as pool:
        yield pool


def record(catalog: Catalog, number: int) -> None:
    """Record a chunk, all of one label."""
    names = [f"{number}-{row}" for row in range(CHUNK)]
    outcomes = [
        Outcome(source(name), image=described(name, row), metadata={"file": {"chunk": number}})
        for row, name in enumerate(names)
    ]
    catalog.record_chunk(outcomes, ShardRecord(f"{number:08d}.safetensors", CHUNK, 100, "0" * 64))


def record_chunks(address: CatalogAddress, numbers: range, readers: Sequence[Path] = ()) -> int:
    """Record chunks in a process of its own, once these readers have begun."""
    while not all(ready.exists() for ready in readers):
        time.sleep(0.01)
    with Catalog.create(address) as catalog:
        for number in numbers:
            record(catalog, number)
    return len(numbers)


def read_until(address: CatalogAddress, count: int, ready: Path) -> tuple[int, list[str]]:
    """Read until there are so many images; return how often, and what was half there. `ready` tells of the first."""
    reads, halves, deadline_s = 0, [], time.monotonic() + 120
    with Catalog.open(address) as catalog:
        seen = 0
        while seen < count and time.monotonic() < deadline_s:
            images = catalog.images(state=INDEXED)
            seen, reads = len(images), reads + 1
            ready.touch()
            if seen % CHUNK:
                halves.append(f"{seen} images")
            if any(not image.uris or image.shard_file is None or not image.user_metadata for image in images):
                halves.append("an image without place, shard or metadata")
            if len(catalog.ids_where(parse("chunk = 0"))) != CHUNK:
                halves.append("a filter without its images")
    return reads, halves if seen >= count else [*halves, f"only {seen} images"]


def test_readers_in_other_processes_see_whole_chunks_while_a_writer_commits(
    filled: CatalogAddress, tmp_path: Path, processes: ProcessPoolExecutor
) -> None:
    """None waits, none fails, and none ever sees a part of a transaction."""
    chunks = 30
    ready = [tmp_path / f"reader-{number}" for number in range(2)]
    readers = [processes.submit(read_until, filled, (chunks + 1) * CHUNK, each) for each in ready]
    writer = processes.submit(record_chunks, filled, range(1, chunks + 1), ready)

    assert writer.result() == chunks
    for reader in readers:
        reads, halves = reader.result()
        assert halves == []
        assert reads > 1


def test_writers_take_turns(filled: CatalogAddress, processes: ProcessPoolExecutor) -> None:
    """Transactions that read before they write wait for each other instead of failing, and all are there."""
    written = [processes.submit(record_chunks, filled, range(start, start + 10)) for start in (100, 200, 300)]

    assert [each.result() for each in written] == [10, 10, 10]
    with Catalog.open(filled) as catalog:
        assert catalog.counts()[INDEXED] == 31 * CHUNK
        assert catalog.check() == []


def test_threads_that_change_the_same_images_lose_nothing(filled: CatalogAddress) -> None:
    """Removals and metadata of many threads at once are all there afterwards."""
    with Catalog.create(filled) as catalog, ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(catalog.remove, [row + 1]) for row in range(CHUNK)]
        jobs += [pool.submit(catalog.set_metadata, "file", {f"file:///0-{row}": {"row": row}}) for row in range(CHUNK)]
        assert [job.result() for job in jobs] == [1] * len(jobs)

        assert catalog.counts()[INDEXED] == 0
        assert catalog.ids_where(parse("row:*"), state="removed").tolist() == list(range(1, CHUNK + 1))
        assert catalog.check() == []


def test_a_reader_keeps_what_it_began_with(filled: CatalogAddress) -> None:
    """Within a question the catalogue stands still: what is committed meanwhile is seen by the next one."""
    with Catalog.create(filled) as catalog, Catalog.open(filled) as reading, reading._reading() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM images").scalar()
        record(catalog, 1)
        during = connection.exec_driver_sql("SELECT count(*) FROM images").scalar()
        after = len(reading.images())

    assert (before, during, after) == (CHUNK, CHUNK, 2 * CHUNK)


@pytest.mark.parametrize("read_only", [True, False])
def test_every_connection_is_set_on_purpose(path: Path, read_only: bool) -> None:
    """Also of a pool's second one: a log for readers, references checked, patience; a writer's commits are on disk."""
    engine = connect(path, read_only=read_only)
    names = ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")

    with engine.connect() as first, engine.connect() as second:
        found = [
            [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names] for connection in (first, second)
        ]
    engine.dispose()

    full = 2
    assert found == [["wal", 1, BUSY_TIMEOUT_S * 1000, full]] * 2


def test_a_reader_cannot_write(path: Path) -> None:
    """Its connections are read-only to the database itself."""
    engine = connect(path, read_only=True)

    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM images").scalar() == CHUNK
        with pytest.raises(CollectionNotWritable, match="readonly"):
            connection.exec_driver_sql("DELETE FROM images")
    engine.dispose()


@pytest.mark.parametrize(
    "orphan",
    [
        "INSERT INTO sources (uri, image_id, byte_count, modified_ns) VALUES ('file:///x', 99, 1, 1)",
        "INSERT INTO properties (image_id, name, kind) VALUES (99, 'x', 'bool')",
        "UPDATE images SET shard_id = 99 WHERE id = 1",
        "DELETE FROM images WHERE id = 1",
        "DELETE FROM shards WHERE id = 1",
    ],
)
def test_no_row_may_refer_to_nothing(path: Path, orphan: str) -> None:
    """The database refuses it, whoever asks."""
    engine = connect(path)

    with pytest.raises(IntegrityError, match="FOREIGN KEY"), engine.begin() as connection:
        connection.exec_driver_sql(orphan)
    engine.dispose()

    assert raw(path, "SELECT count(*) FROM images") == [(CHUNK,)]


def test_a_writer_waits_while_another_process_holds_the_catalog(path: Path) -> None:
    """For half a second here, for as long as the timeout if need be."""
    with (
        Catalog.create(path) as catalog,
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("BEGIN IMMEDIATE")
        writing = pool.submit(keep, catalog, Outcome(source("late"), image=described("late")))
        time.sleep(0.5)
        waited = not writing.done()
        read = len(catalog.images())
        other.execute("COMMIT")
        writing.result()

        assert waited
        assert read == CHUNK
        assert catalog.id_of_content("late") is not None
