"""Schemas that change under data: up, down and up again, nothing is lost that the other schema can hold."""

import json
import signal
import zlib

import pytest
from alembic import command
from alembic.script import ScriptDirectory

from tests import commands
from tests.cataloguing import described, failed, keep, migrate, raw, source
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.database import CatalogAddress
from whatwhere.indexer.catalog.records import INDEXED, Outcome
from whatwhere.indexer.catalog.schema import migration_config, revisions
from whatwhere.indexer.errors import CollectionCorrupt
from whatwhere.indexer.metadata.filters import parse

# Brings a catalogue up to date and is killed after so many changes of rows or tables.
KILLED_WHILE_MIGRATING = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from whatwhere.indexer.catalog.catalog import Catalog

made = 0

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, *_):
    global made
    made += statement.lstrip().startswith(("CREATE", "ALTER", "UPDATE"))
    if made == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

Catalog.create(sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1]))
"""


def dump(address: CatalogAddress) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of the first schema's columns."""
    return {
        "images": raw(
            address,
            "SELECT id, content_hash, state, width, height, byte_count, mime_type, failure_reason, failure_message, "
            "shard_id, shard_row, user_metadata, created_at, updated_at FROM images ORDER BY id",
        ),
        "sources": raw(address, "SELECT id, uri, image_id, byte_count, modified_ns FROM sources ORDER BY id"),
        "shards": raw(
            address, "SELECT id, file_name, image_count, byte_count, sha256, created_at FROM shards ORDER BY id"
        ),
        "runs": raw(address, "SELECT * FROM runs ORDER BY id"),
        "generations": raw(address, "SELECT * FROM generations ORDER BY number"),
    }


def test_revisions_are_those_of_alembic() -> None:
    """In the same order: their names are read without it."""
    scripts = ScriptDirectory.from_config(migration_config())

    assert revisions() == [script.revision for script in scripts.walk_revisions()][::-1]


@pytest.fixture
def filled(address: CatalogAddress) -> CatalogAddress:
    """Give the address of a closed catalogue: two indexed images, one of them at two places, and a failed one."""
    with Catalog.create(address) as catalog:
        keep(catalog, Outcome(source("a"), image=described("a", 0)), Outcome(source("é"), image=described("b", 1)))
        keep(catalog, Outcome(source("a2"), known_hash="a"), Outcome(source("d"), image=failed("d")))
        catalog.record_generation(1, 2)
        catalog.finish_run(catalog.start_run(), {"images": 2})
    return address


@pytest.fixture
def older(filled: CatalogAddress) -> CatalogAddress:
    """Give the address of the same catalogue in the first schema."""
    migrate(filled, command.downgrade, "0001")
    return filled


def test_a_catalog_of_the_first_schema_comes_up_whole(older: CatalogAddress) -> None:
    """Every row is there and sealed, and what is new works at once."""
    before = dump(older)

    with Catalog.create(older) as catalog:
        faults, images = catalog.check(), catalog.images()
        catalog.set_metadata("file", {"file:///a": {"label": "boat"}})
        found = catalog.ids_where(parse("label = boat")).tolist()

    assert before["images"]
    assert faults == []
    assert [(image.id, image.uris) for image in images] == [
        (1, ("file:///a", "file:///a2")),
        (2, ("file:///é",)),
        (3, ("file:///d",)),
    ]
    assert found == [1]


def test_up_down_and_up_again_keeps_every_row(older: CatalogAddress) -> None:
    """Values, ids and times are the same below and above."""
    below = dump(older)

    migrate(older, command.upgrade, "head")
    above = dump(older)
    migrate(older, command.downgrade, "0001")
    below_again = dump(older)
    migrate(older, command.upgrade, "head")

    assert above == below == below_again == dump(older)
    with Catalog.open(older) as catalog:
        assert catalog.check() == []


@pytest.mark.usefixtures("path")
def test_the_schema_is_the_same_after_a_way_down(filled: CatalogAddress) -> None:
    """Columns, indexes and references, as the first way up made them."""
    before = raw(filled, "SELECT name, sql FROM sqlite_master ORDER BY name")

    migrate(filled, command.downgrade, "0001")
    migrate(filled, command.upgrade, "head")

    assert raw(filled, "SELECT name, sql FROM sqlite_master ORDER BY name") == before


def test_ids_are_not_used_again_after_a_migration(older: CatalogAddress) -> None:
    """The highest id ever given is remembered across schemas."""
    raw(older, "DELETE FROM sources WHERE image_id = 3")
    raw(older, "DELETE FROM images WHERE id = 3")

    with Catalog.create(older) as catalog:
        keep(catalog, Outcome(source("new"), image=described("new")))

        assert catalog.max_id() == 4


def test_checksums_are_those_of_the_rows(older: CatalogAddress) -> None:
    """Computed by hand: the CRC-32 of table and values by name, in JSON without spaces."""
    migrate(older, command.upgrade, "head")

    ((found, uri, image_id, byte_count, modified_ns),) = raw(
        older, "SELECT checksum, uri, image_id, byte_count, modified_ns FROM sources WHERE id = 2"
    )
    values = f'"byte_count":{byte_count},"image_id":{image_id},"metadata":{{}},"modified_ns":{modified_ns}'
    text = f'["sources",{{{values},"uri":{json.dumps(uri)}}}]'
    assert found == zlib.crc32(text.encode())


def test_metadata_survives_a_way_down(address: CatalogAddress) -> None:
    """The first schema keeps an image's metadata; up again its first place has it, in rows to filter by."""
    with Catalog.create(address) as catalog:
        keep(catalog, Outcome(source("a"), image=described("a")), Outcome(source("b"), known_hash="a"))
        keep(catalog, Outcome(source("c"), image=described("c")))
        catalog.set_metadata("exif", {"file:///b": {"camera": "A", "taken": "2024-05-01"}})
        catalog.set_metadata("file", {"file:///a": {"label": ["boat", 1]}})

    migrate(address, command.downgrade, "0001")
    with Catalog.create(address) as catalog:
        metadata = [image.user_metadata for image in catalog.images()]
        found = catalog.ids_where(parse('label = 1 AND taken > "2024"')).tolist()
        faults = catalog.check()
        catalog.forget_sources(["file:///b"])
        after = [image.user_metadata for image in catalog.images()]

    assert metadata == [{"label": ["boat", 1], "camera": "A", "taken": "2024-05-01"}, {}]
    assert found == [1]
    assert faults == []
    assert after == metadata


def test_integers_that_were_compared_as_float64_are_told_apart(address: CatalogAddress) -> None:
    """A catalog of an earlier schema knows them from its metadata."""
    with Catalog.create(address) as catalog:
        keep(catalog, *(Outcome(source(name), image=described(name, row)) for row, name in enumerate("abc")))
        said = {"a": 2**53 + 1, "b": [2**53, 2**53 + 2], "c": 1}
        catalog.set_metadata("file", {f"file:///{name}": {"id": value} for name, value in said.items()})
    migrate(address, command.downgrade, "0004")

    with Catalog.create(address) as catalog:
        found = {number: catalog.ids_where(parse(f"id = {number}")).tolist() for number in (1, 2**53, 2**53 + 1)}

        assert found == {1: [3], 2**53: [2], 2**53 + 1: [1]}
        assert catalog.check() == []


def test_many_rows_are_sealed_in_parts(address: CatalogAddress) -> None:
    """More rows than are read at once."""
    with Catalog.create(address) as catalog:
        for start in range(0, 1200, 400):
            keep(catalog, *(Outcome(source(f"{start + row}"), described(f"{start + row}", row)) for row in range(400)))
    migrate(address, command.downgrade, "0001")

    with Catalog.create(address) as catalog:
        assert len(catalog.images(state=INDEXED)) == 1200
        assert catalog.check() == []


@pytest.mark.parametrize("changes", [1, 7, 9, 11])
def test_a_kill_while_migrating_does_no_harm(older: CatalogAddress, changes: int) -> None:
    """A process that is killed anywhere in a migration leaves the older schema, whole; the next one migrates."""
    before = dump(older)

    killed = commands.run_code(KILLED_WHILE_MIGRATING, str(older), str(changes))

    assert killed == -signal.SIGKILL
    assert dump(older) == before
    assert raw(older, "SELECT version_num FROM alembic_version") == [("0001",)]
    with Catalog.create(older) as catalog:
        assert catalog.check() == []


@pytest.mark.usefixtures("path")
def test_a_damaged_older_catalog_is_a_named_error(older: CatalogAddress) -> None:
    """What cannot be read cannot be sealed, and stays as it is."""
    raw(older, "UPDATE images SET user_metadata = '{' WHERE id = 1")
    before = dump(older)

    with pytest.raises(CollectionCorrupt, match=r"catalog\.db contains a value that cannot be read"):
        Catalog.create(older)

    assert dump(older) == before
