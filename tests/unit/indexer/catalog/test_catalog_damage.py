"""A catalogue that other hands changed, a torn file, a full disk: found by name, never a wrong answer."""

import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from tests.cataloguing import described, failed, keep, raw, source
from whatwhere.indexer.catalog import database
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.database import CatalogAddress
from whatwhere.indexer.catalog.records import Outcome
from whatwhere.indexer.errors import CollectionCorrupt, CollectionLocked, CollectionNotWritable, WhatwhereError
from whatwhere.indexer.metadata.filters import parse

# What an error says of either database: which it is, and what to do.
NAMED = r"catalog\.db .*`whatwhere verify --repair`|the catalog at 127\.0\.0\.1:\d+, .*schema whatwhere .*pg_restore"


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    """Give a catalogue with something in every table and a value in every column."""
    keep(catalog, Outcome(source("a"), image=described("a", 0)), Outcome(source("b"), image=described("b", 1)))
    keep(catalog, Outcome(source("c"), image=described("c", 0)), Outcome(source("d"), image=failed("d")))
    catalog.set_metadata("file", {"file:///a": {"label": "boat", "year": 1990, "taken": "2024-05-01", "draft": True}})
    catalog.remove([3])
    catalog.record_generation(1, 2)
    catalog.finish_run(catalog.start_run(), {"images": 2})
    return catalog


def test_a_whole_catalog_has_no_faults(filled: Catalog) -> None:
    """Whatever was done to it."""
    assert filled.check() == []


# --- rows -------------------------------------------------------------------------------------------------------


CHANGES = (
    ("UPDATE images SET content_hash = 'x' WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET state = 'removed' WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET width = 641 WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET height = 481 WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET byte_count = 11 WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET mime_type = 'image/png' WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET failure_reason = 'X' WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET failure_message = 'x' WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET shard_id = 2 WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET shard_row = 1 WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET user_metadata = '{}' WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET created_at = '2000-01-01 00:00:00.000000' WHERE id = 1", "images 1 does not match"),
    ("UPDATE images SET removed_at = created_at WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET checksum = 0 WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE images SET checksum = NULL WHERE id = 1", "images 1 does not match its checksum"),
    ("UPDATE sources SET uri = 'file:///x' WHERE id = 1", "sources 1 does not match its checksum"),
    ("UPDATE sources SET byte_count = 11 WHERE id = 1", "sources 1 does not match its checksum"),
    ("UPDATE sources SET modified_ns = 2 WHERE id = 1", "sources 1 does not match its checksum"),
    ("UPDATE sources SET metadata = '{}' WHERE id = 1", "sources 1 does not match its checksum"),
    ("UPDATE sources SET checksum = 1 WHERE id = 1", "sources 1 does not match its checksum"),
    ("UPDATE sources SET image_id = 1 WHERE id = 2", "sources 2 does not match its checksum"),
    ("UPDATE shards SET file_name = 'x' WHERE id = 1", "shards 1 does not match its checksum"),
    ("UPDATE shards SET image_count = 3 WHERE id = 1", "shards 1 does not match its checksum"),
    ("UPDATE shards SET byte_count = 1 WHERE id = 1", "shards 1 does not match its checksum"),
    ("UPDATE shards SET sha256 = 'x' WHERE id = 1", "shards 1 does not match its checksum"),
    ("UPDATE shards SET checksum = 5 WHERE id = 1", "shards 1 does not match its checksum"),
)


@contextmanager
def changed(address: CatalogAddress, change: str) -> Iterator[None]:
    """Change a table past the catalogue, and put its rows back as they were."""
    table = change.removeprefix("UPDATE ").removeprefix("DELETE FROM ").partition(" ")[0]
    raw(address, f"CREATE TABLE kept AS SELECT * FROM {table}")
    raw(address, change)
    try:
        yield
    finally:
        for statement in (f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM kept", "DROP TABLE kept"):
            raw(address, statement)


def test_a_changed_row_is_refused_and_found(address: CatalogAddress, filled: Catalog) -> None:
    """Reading it is a named error with the remedy, and the check tells which row it is."""
    problems = []
    for change, fault in CHANGES:
        with changed(address, change):
            try:
                problems.append(f"{change}: read as {filled.images()}")
            except CollectionCorrupt as error:
                if not re.search(NAMED, str(error)):
                    problems.append(f"{change}: {error}")
            faults = filled.check()
        if not any(fault in found for found in faults):
            problems.append(f"{change}: found {faults}")

    assert problems == []
    assert filled.check() == []  # each was the only one


@pytest.mark.parametrize("value", ["width = 'wide'", "mime_type = x'00ff'"])
def test_a_value_of_another_type_is_refused_and_found(path: Path, filled: Catalog, value: str) -> None:
    """SQLite takes them."""
    raw(path, f"UPDATE images SET {value} WHERE id = 1")

    with pytest.raises(CollectionCorrupt, match=NAMED):
        filled.images()
    assert any("images 1 does not match its checksum" in found for found in filled.check())


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE images SET created_at = 'yesterday' WHERE id = 1",
        "UPDATE images SET created_at = 5 WHERE id = 1",
        "UPDATE images SET user_metadata = '{' WHERE id = 1",
        "UPDATE sources SET metadata = 'x' WHERE id = 1",
        "UPDATE images SET mime_type = CAST(x'ff' AS TEXT) WHERE id = 1",
    ],
)
def test_a_value_that_is_none_is_a_named_error(path: Path, filled: Catalog, change: str) -> None:
    """What cannot be read as a time, JSON or text is damage, not a traceback."""
    raw(path, change)

    with pytest.raises(CollectionCorrupt, match=r"catalog\.db"):
        filled.images_by_id([1])
    assert filled.check() != []


def test_a_changed_place_is_not_handed_out(address: CatalogAddress, filled: Catalog) -> None:
    """A wrong row of a shard would be another image's description."""
    raw(address, "UPDATE images SET shard_row = 1 - shard_row WHERE id < 3")

    with pytest.raises(CollectionCorrupt, match=r"image [12] of"):
        filled.live_places()
    with pytest.raises(CollectionCorrupt, match="image 2 of"):
        filled.places([2])


CONTRADICTIONS = (
    ("DELETE FROM sources WHERE id = 1", "images/1 is indexed but has no source"),
    ("DELETE FROM sources WHERE id = 4", "images/4 is failed but has no source"),
    ("UPDATE images SET state = 'lost' WHERE id = 1", "images/1 has the unknown state 'lost'"),
    ("UPDATE images SET shard_id = NULL WHERE id = 1", "images/1 is indexed but has no shard"),
    ("UPDATE images SET shard_row = 2 WHERE id = 1", "images/1 is in row 2 of shard 00000001.safetensors, which"),
    ("UPDATE images SET shard_row = -1 WHERE id = 1", "images/1 is in row -1 of shard 00000001.safetensors"),
    ("UPDATE images SET shard_row = 1 WHERE id = 1", "row 1 of shard 00000001.safetensors is used by 2 images"),
    ("DELETE FROM shards WHERE id = 1", "images 1 refers to a missing row of shards"),
    ("DELETE FROM images WHERE id = 4", "sources 4 refers to a missing row of images"),
    ("DELETE FROM properties WHERE name = 'label'", "images/1 does not match its rows"),
    ("UPDATE properties SET text_value = 'x' WHERE name = 'label'", "images/1 does not match its rows"),
    ("UPDATE properties SET kind = 'bool' WHERE name = 'year'", "images/1 does not match its rows"),
    ("UPDATE properties SET image_id = 2 WHERE name = 'year'", "images/2 does not match its rows"),
    ("UPDATE properties SET number_value = 1 WHERE name = 'taken'", "images/1 does not match its rows"),
    ("UPDATE sources SET metadata = '{}' WHERE id = 1", "images/1 does not match the metadata of its sources"),
)


def test_every_contradiction_is_found(address: CatalogAddress, filled: Catalog) -> None:
    """Tables are compared with each other."""
    missed = {}
    for change, fault in CONTRADICTIONS:
        with changed(address, change):
            faults = filled.check()
        if not any(found.startswith(fault) for found in faults):
            missed[change] = faults

    assert missed == {}
    assert filled.check() == []  # each was the only one


def test_an_image_that_lost_its_places_is_not_handed_out(address: CatalogAddress, filled: Catalog) -> None:
    """An indexed image always has one."""
    raw(address, "DELETE FROM sources WHERE id = 1")

    with pytest.raises(CollectionCorrupt, match=r"images/1 of .* has no sources"):
        filled.image(1)


def test_of_one_kind_fifty_faults_are_listed(address: CatalogAddress, catalog: Catalog) -> None:
    """A catalogue that is damaged throughout does not fill the screen."""
    keep(catalog, *(Outcome(source(f"{row}"), image=described(f"{row}", row)) for row in range(60)))
    raw(address, "UPDATE images SET width = 1")

    faults = catalog.check()

    assert len(faults) == 51
    assert faults[-1] == "more faults of this kind: only the first 50 are listed"


# --- the file ---------------------------------------------------------------------------------------------------


def test_an_index_that_lies_is_found_and_made_anew(path: Path, filled: Catalog) -> None:
    """What is only in an index is made again from the table."""
    whole = filled.ids_where(parse("label = boat")).tolist()
    filled.vacuum()  # all of it is in the file, and nothing in the log
    filled.close()
    (page,) = raw(path, "SELECT rootpage FROM sqlite_master WHERE name = 'ix_properties_name_text_value'")[0]
    (size,) = raw(path, "PRAGMA page_size")[0]
    assert isinstance(page, int)
    assert isinstance(size, int)
    content = bytearray(path.read_bytes())
    at = content.index(b"boat", (page - 1) * size, page * size)
    content[at : at + 4] = b"goat"
    path.write_bytes(content)

    with Catalog.create(path) as opened:
        faults = opened.check()
        opened.reindex()

        assert any("ix_properties_name_text_value" in fault for fault in faults)
        assert opened.check() == []
        assert opened.ids_where(parse("label = boat")).tolist() == whole


def everything(catalog: Catalog) -> list[object]:
    """Return all that a server and an indexer ask for."""
    return [
        catalog.images(),
        catalog.indexed_ids().tolist(),
        catalog.shards(),
        catalog.live_places(),
        catalog.ids_where(parse("label = boat OR year < 2000")).tolist(),
        catalog.ids_of_uris("*").tolist(),
        catalog.unchanged([source(name) for name in "abcd"]),
        catalog.last_generation(),
        catalog.counts(),
    ]


def test_a_flipped_byte_is_found_or_harmless(path: Path, filled: Catalog, tmp_path: Path) -> None:
    """Anywhere in the file: opening or reading is a named error, or the check finds it, or every answer is the same."""
    expected = everything(filled)
    filled.vacuum()
    filled.close()
    whole = path.read_bytes()
    generator = random.Random(7)
    # Half of them where something stands, for most of a small file is empty.
    written = [position for position, byte in enumerate(whole) if byte]
    positions = [*generator.sample(written, 90), *generator.sample(range(len(whole)), 60)]
    damaged = tmp_path / "damaged" / "catalog.db"
    found = 0

    for position in positions:
        shutil.rmtree(damaged.parent, ignore_errors=True)
        damaged.parent.mkdir()
        changed = bytearray(whole)
        changed[position] ^= 1 << generator.randrange(8)
        damaged.write_bytes(changed)
        try:
            with Catalog.create(damaged) as opened:
                if opened.check():
                    found += 1
                    continue
                assert everything(opened) == expected, position
        except WhatwhereError:
            found += 1

    assert found > 40


@pytest.mark.parametrize("keep_bytes", [0, 1, 100, 5000, 20_000])
def test_a_truncated_file_is_found(path: Path, filled: Catalog, keep_bytes: int) -> None:
    """However much is left: an empty file is no catalogue to a reader."""
    filled.vacuum()
    filled.close()
    path.write_bytes(path.read_bytes()[:keep_bytes])

    with pytest.raises(CollectionCorrupt):
        read(path)


def read(path: Path) -> list[object]:
    """Open a catalogue and ask for everything."""
    with Catalog.open(path) as opened:
        return everything(opened)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("DROP TABLE properties", "no such table: properties|relation .properties. does not exist"),
        (
            "ALTER TABLE properties RENAME COLUMN text_value TO test_value",
            "no such column: properties|column properties.text_value does not",
        ),
    ],
)
def test_another_schema_is_damage(address: CatalogAddress, filled: Catalog, change: str, fault: str) -> None:
    """Statements that meet other tables than ours are not the statements' fault."""
    raw(address, change)

    with pytest.raises(CollectionCorrupt, match=fault):
        filled.ids_where(parse("label = boat"))
    assert any(re.search(fault, found) for found in filled.check())


def test_a_reference_to_what_cannot_be_referred_to_is_damage(path: Path, filled: Catalog) -> None:
    """One changed letter of the schema, and references cannot be checked: the check says so and goes on."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'REFERENCES images (id)', 'REFERENCES images (if)')"
        )
    filled.close()

    faults = filled.check()

    assert any("foreign key mismatch" in found for found in faults)


def test_rows_out_of_order_bring_the_check_to_an_end(path: Path, filled: Catalog) -> None:
    """A table whose ids do not ascend any more is found, and not looked through for ever."""
    filled.vacuum()
    filled.close()
    ((page,),) = raw(path, "SELECT rootpage FROM sqlite_master WHERE name = 'images'")
    ((size,),) = raw(path, "PRAGMA page_size")
    assert isinstance(page, int)
    assert isinstance(size, int)
    content = bytearray(path.read_bytes())
    start = (page - 1) * size
    count = int.from_bytes(content[start + 3 : start + 5], "big")
    first, last = (start + 8 + 2 * cell for cell in (count - 2, count - 1))
    content[first : first + 2], content[last : last + 2] = content[last : last + 2], content[first : first + 2]
    path.write_bytes(content)

    with Catalog.create(path) as opened:
        faults = opened.check()

    assert count == 4
    assert any("out of order" in fault for fault in faults)


# --- the disk and others ----------------------------------------------------------------------------------------


def test_a_catalog_that_may_not_be_written_is_a_named_error(address: CatalogAddress, filled: Catalog) -> None:
    """The message says what to do, and nothing changed."""
    before = filled.images()

    with Catalog.open(address) as opened:
        with pytest.raises(
            CollectionNotWritable,
            match=r"cannot be written .*(free disk space or|free disk space on the server)",
        ):
            opened.remove([1])

        assert opened.images() == before


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    "write",
    [
        lambda catalog: keep(catalog, *(Outcome(source("x" * 3000 + f"{row}"), failed(f"{row}")) for row in range(99))),
        lambda catalog: catalog.set_metadata("file", {"file:///a": {"text": "x" * 300_000}}),
    ],
    ids=["a chunk", "metadata"],
)
def test_a_full_disk_is_a_named_error_and_changes_nothing(filled: Catalog, write: Callable[[Catalog], object]) -> None:
    """A database that may not grow behaves as on a full disk; with room again it goes on."""
    before = filled.images()
    filled.close()

    def bound(connection: sqlite3.Connection, _: object) -> None:
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {count + 1}")

    event.listen(filled._engine, "connect", bound)
    with pytest.raises(CollectionNotWritable, match="full"):
        write(filled)
    event.remove(filled._engine, "connect", bound)
    after = filled.images()
    filled.close()  # the bound goes with its connections
    write(filled)

    assert after == before
    assert filled.check() == []


def test_a_folder_that_is_not_there_is_a_named_error(tmp_path: Path) -> None:
    """A catalogue is not made in a folder that does not exist."""
    with pytest.raises(CollectionNotWritable, match="unable to open database file"):
        Catalog.create(tmp_path / "missing" / "catalog.db")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections wait for others a tenth of a second."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_catalog_that_another_holds_for_long_is_a_named_error(path: Path) -> None:
    """After the time to wait, the error says that another process has it, and the work can be done again."""
    with Catalog.create(path) as catalog, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CollectionLocked, match=r"another process has locked catalog\.db"):
            keep(catalog, Outcome(source("a"), image=described("a")))
        other.execute("ROLLBACK")
        keep(catalog, Outcome(source("a"), image=described("a")))

        assert catalog.counts()["indexed"] == 1
