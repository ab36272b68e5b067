"""The catalogue in PostgreSQL, on a real server: lock, lost connections, restarts, refusals; and SQLite beside it."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tests.cataloguing import described, keep, raw, source
from tests.postgres import PostgresServer
from whatwhere.indexer.catalog import database as catalog_database
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import INDEXED, NewImage, Outcome, ShardRecord
from whatwhere.indexer.catalog.transfer import TABLES
from whatwhere.indexer.errors import (
    CatalogRefused,
    CatalogUnavailable,
    CollectionCorrupt,
    CollectionLocked,
    CollectionNotWritable,
    InvalidRequest,
)
from whatwhere.indexer.metadata.filters import parse
from whatwhere.indexer.sources.kinds import Skip


@pytest.fixture
def name(postgres: PostgresServer) -> Iterator[str]:
    """Give the name of a database with an empty catalogue."""
    made = postgres.database()
    yield made
    postgres.drop(made)


@pytest.fixture
def url(postgres: PostgresServer, name: str) -> str:
    """Give the address of an empty catalogue."""
    return postgres.url(name)


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    """Give an empty catalogue, open for writing."""
    with Catalog.create(url) as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writers wait for others a fifth of a second."""
    monkeypatch.setattr(catalog_database, "BUSY_TIMEOUT_S", 0.2)


def record(catalog: Catalog, content: str, count: int = 1) -> None:
    """Record a chunk of so many described images."""
    keep(catalog, *(Outcome(source(f"{content}{row}"), described(f"{content}{row}", row)) for row in range(count)))


def kill_connections(postgres: PostgresServer, name: str) -> None:
    """Have the server end every connection to a database, and wait until they are gone."""
    connected = f"FROM pg_stat_activity WHERE datname = '{name}'"
    postgres.run(f"SELECT pg_terminate_backend(pid) {connected}")
    while postgres.run(f"SELECT 1 {connected}"):
        time.sleep(0.01)


# --- the writer's lock ------------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_is_at_work(url: str, catalog: Catalog) -> None:
    """It does not wait; once the first has ended it gets in."""
    with Catalog.create(url) as second:
        with catalog.alone(), pytest.raises(CollectionLocked, match=r"locked by whatwhere \d+ on .* \(process \d+"):
            second.alone().__enter__()
        with second.alone():
            record(second, "a")

    assert catalog.counts()[INDEXED] == 1


@pytest.mark.usefixtures("impatient")
def test_nobody_writes_beside_a_writer_that_is_alone(url: str, catalog: Catalog) -> None:
    """Not even in a single transaction; who is alone can."""
    with catalog.alone(), Catalog.create(url) as second:
        with pytest.raises(CollectionLocked, match=r"locked by whatwhere \d+ on"):
            record(second, "b")
        record(catalog, "a")

    assert [image.uris for image in catalog.images()] == [("file:///a0",)]


def test_a_writer_that_lost_its_connection_can_write_no_more(
    postgres: PostgresServer, name: str, url: str, catalog: Catalog
) -> None:
    """The second gets in with the lock; the first is told to run again, however often it tries, and reads go on."""
    with Catalog.create(url) as second:
        with catalog.alone():
            record(catalog, "a")
            kill_connections(postgres, name)
            with second.alone():
                record(second, "b")
                for _ in range(2):
                    with pytest.raises(CatalogUnavailable, match="again"):
                        record(catalog, "c")
            with pytest.raises(CatalogUnavailable, match="run again to continue"):
                catalog.vacuum()
        with catalog.alone():
            record(catalog, "d")

        assert [image.uris[0] for image in second.images()] == ["file:///a0", "file:///b0", "file:///d0"]
    assert catalog.check() == []


def test_verification_keeps_writers_away_and_not_others_that_verify(url: str, catalog: Catalog) -> None:
    """Two at once can; a writer that is at work keeps them away."""
    with Catalog.open(url) as first, Catalog.open(url) as second:
        with (
            first.not_being_written(),
            second.not_being_written(),
            pytest.raises(CollectionLocked, match=r"whatwhere \d+ on .* and whatwhere \d+ on"),
        ):
            catalog.alone().__enter__()
        with catalog.alone(), pytest.raises(CollectionLocked):
            first.not_being_written().__enter__()
        with catalog.alone():
            record(catalog, "a")

    assert catalog.counts()[INDEXED] == 1


def test_threads_of_a_writer_that_is_alone_take_turns(catalog: Catalog) -> None:
    """They share the one connection that may write."""
    with catalog.alone(), ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(catalog.record_generation, number, 1) for number in range(1, 30)]
        jobs += [pool.submit(catalog.start_run) for _ in range(10)]
        for job in jobs:
            job.result()

    assert catalog.last_generation() == 29


def test_collections_of_one_database_do_not_meet(postgres: PostgresServer, name: str, catalog: Catalog) -> None:
    """Each has a schema, which is made, and a lock."""
    with Catalog.create(postgres.url(name, query="?schema=second")) as other, catalog.alone(), other.alone():
        record(catalog, "a", 2)
        record(other, "b")

        assert [image.uris for image in other.images()] == [("file:///b0",)]
    assert len(catalog.images()) == 2


def test_ids_have_no_gaps_and_are_never_used_again(postgres: PostgresServer, name: str, catalog: Catalog) -> None:
    """Neither after a transaction that failed nor after the last row was deleted."""
    record(catalog, "a", 3)
    with pytest.raises(IntegrityError):
        keep(catalog, Outcome(source("x"), described("x")), Outcome(source("y"), known_hash="nobody recorded"))
    record(catalog, "b")
    raw(postgres.url(name), "DELETE FROM sources WHERE image_id = 4")
    raw(postgres.url(name), "DELETE FROM images WHERE id = 4")
    record(catalog, "c")

    assert [(image.id, image.uris[0]) for image in catalog.images()] == [
        (1, "file:///a0"),
        (2, "file:///a1"),
        (3, "file:///a2"),
        (5, "file:///c0"),
    ]


# --- readers ----------------------------------------------------------------------------------------------------


def test_a_reader_sees_all_of_a_chunk_or_nothing(url: str, catalog: Catalog) -> None:
    """It does not wait for the chunk that is being written, and within a question nothing changes."""
    record(catalog, "a", 3)
    seen = []

    with Catalog.open(url) as reading:

        def look(session: Session) -> None:
            session.flush()
            seen.append(len(reading.images()))

        event.listen(Session, "before_commit", look)
        try:
            record(catalog, "b", 3)
        finally:
            event.remove(Session, "before_commit", look)
        with reading._reading() as connection:
            before = connection.exec_driver_sql("SELECT count(*) FROM images").scalar()
            record(catalog, "c", 3)
            during = connection.exec_driver_sql("SELECT count(*) FROM images").scalar()

        assert (seen, before, during, len(reading.images())) == ([3], 6, 6, 9)


def test_a_reader_whose_connections_were_ended_asks_on(
    postgres: PostgresServer, name: str, url: str, catalog: Catalog
) -> None:
    """What ended while nobody used it is noticed before it is used."""
    record(catalog, "a")
    with Catalog.open(url) as reading:
        reading.images()
        kill_connections(postgres, name)

        assert len(reading.images()) == 1


def test_a_question_that_is_cut_off_is_a_named_error_and_the_next_is_answered(
    postgres: PostgresServer, name: str, url: str
) -> None:
    """The connection ends between two statements of one question."""
    with Catalog.open(url) as reading:
        with reading._reading() as connection:
            connection.exec_driver_sql("SELECT 1")
            kill_connections(postgres, name)
            with pytest.raises(CatalogUnavailable, match="does not answer"):
                connection.exec_driver_sql("SELECT 1")

        assert reading.images() == []


def test_a_reader_outlives_a_restart_of_the_server() -> None:
    """While the server is away there is a named error at once; afterwards the same reader is answered."""
    with closing(PostgresServer()) as server:
        url = server.url(server.database())
        with Catalog.create(url) as catalog, Catalog.open(url) as reading:
            record(catalog, "a")
            reading.images()
            server.stop()
            started_s = time.monotonic()
            with pytest.raises(CatalogUnavailable, match=r"127\.0\.0\.1:\d+, database test_1, .* does not answer"):
                reading.images()
            waited_s = time.monotonic() - started_s
            server.start()

            assert len(reading.images()) == 1
            record(catalog, "b")
            assert len(reading.images()) == 2
            assert waited_s < 5


def test_a_reader_cannot_write(url: str, catalog: Catalog) -> None:
    """The server itself refuses."""
    record(catalog, "a")

    with Catalog.open(url) as reading, pytest.raises(CollectionNotWritable, match="read-only"):
        reading.remove([1])


def test_a_reader_does_not_wait_for_ever(url: str, catalog: Catalog) -> None:
    """A statement that takes longer than the address allows is a named error; the whole check may take its time."""
    record(catalog, "a")

    with Catalog.open(f"{url}?options=-cstatement_timeout%3D100") as reading:
        with pytest.raises(CatalogUnavailable, match="statement timeout"), reading._asking() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(10)")

        assert reading.check() == []


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "database", "query", "said"),
    [
        ("locked:wrong-pass", "{}", "", "password authentication failed"),
        ("locked", "{}", "", "no password supplied"),
        ("postgres:wrong-pass", "nowhere", "", "does not exist"),
        ("nobody:wrong-pass", "{}", "", 'role "nobody" does not exist'),
        ("postgres:wrong-pass", "{}", "?sslmode=require", "SSL"),
        ("locked:s3cret", "{}", "", "permission denied"),
    ],
)
def test_a_refusal_names_the_database_and_never_the_password(
    postgres: PostgresServer, name: str, user: str, database: str, query: str, said: str
) -> None:
    """Host and database are named, with what the server said."""
    database = database.format(name)

    with pytest.raises(CatalogRefused, match=f"127.0.0.1:{postgres.port}, database {database}.*{said}") as raised:
        Catalog.open(postgres.url(database, user, query))

    shown = [str(error) for error in chain_of(raised.value)]
    assert not any("wrong-pass" in text or "s3cret" in text for text in shown)


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_a_password_in_the_address_is_taken(postgres: PostgresServer, name: str) -> None:
    """A role with the right to make its schema makes and keeps a catalogue there."""
    postgres.run(f"GRANT CREATE ON DATABASE {name} TO locked")

    with Catalog.create(postgres.url(name, "locked:s3cret", "?schema=own")) as catalog:
        record(catalog, "a")
        catalog.vacuum()
        catalog.reindex()

        assert catalog.check() == []
        assert "s3cret" not in repr(catalog._engine)


def test_a_schema_that_may_not_be_made_is_refused(postgres: PostgresServer, name: str) -> None:
    """The right that is lacking is named."""
    with pytest.raises(CatalogRefused, match="permission denied for database"):
        Catalog.create(postgres.url(name, "locked:s3cret", "?schema=own"))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("postgresql://me:secret@host/d?nonsense=secret", "the option 'nonsense', which is none: see PostgreSQL's"),
        ("postgresql://me:secret@host/d?hots=secret", "the option 'hots', which is none: did you mean host?"),
        ("postgresql://me:secret@host/d?shema=secret", "did you mean schema?"),
        ("postgresql://me:secret@host/d?connect_timeout=x", "connect_timeout=x: give a number"),
        ("postgresql://me:secret@host/d?port=5432,x", "port=5432,x: give a number"),
        ("mysql://me:secret@host/database", "mysql is not a supported catalog database"),
        ("no address with secret", "is not a URL"),
        ("postgresql+psycopg://me:secret@host:port/database", "is not a URL"),
        ("postgresql+psycopg://me:secret@host/database?schema=Öffentlich", "is not a valid schema name"),
        ("postgresql+psycopg://me:secret@host/database?schema=pg_catalog", "is not a valid schema name"),
        ("postgresql+psycopg://me:secret@host/database?schema=a&schema=b", "is not a valid schema name"),
    ],
)
def test_an_address_that_is_none_is_not_repeated(written: str, said: str) -> None:
    """It may hold a password."""
    with pytest.raises(InvalidRequest, match=said) as raised:
        Catalog.open(written)

    assert "secret" not in str(raised.value)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    """The name of a host that there is not, and a port where nobody listens."""
    for host in ("127.0.0.1:1", "nowhere.invalid"):
        with pytest.raises(CatalogUnavailable, match=f"{host}, database d, schema whatwhere does not answer"):
            Catalog.open(f"postgresql://me@{host}/d")


def test_a_database_without_a_catalog_is_not_read(postgres: PostgresServer, name: str) -> None:
    """Reading makes nothing."""
    with pytest.raises(CollectionCorrupt, match="schema other is not a readable catalog, or its first run"):
        Catalog.open(postgres.url(name, query="?schema=other"))

    assert postgres.run("SELECT 1 FROM pg_namespace WHERE nspname = 'other'", name) == []


def test_a_database_that_cannot_hold_every_text_is_refused(postgres: PostgresServer) -> None:
    """Names and metadata are Unicode."""
    postgres.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'")

    with pytest.raises(CatalogRefused, match="encoding LATIN1"):
        Catalog.create(postgres.url("latin"))


def test_without_the_driver_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where only SQLite is used."""
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(InvalidRequest, match=r"pip install 'whatwhere\[postgresql\]'"):
        Catalog.open("postgresql+psycopg://me@host/database")


# --- SQLite beside it -------------------------------------------------------------------------------------------


def move(source: Catalog, target: Catalog, most: int = sys.maxsize) -> None:
    """Move all rows, two at a time, or as many groups as given."""
    for table in TABLES:
        while most > 0 and (rows := source.export_rows(table, target.last_key(table), 2)):
            target.import_rows(table, rows)
            most -= 1


def everything(catalog: Catalog) -> dict[str, Any]:
    return {table: catalog.export_rows(table, 0, 1_000_000) for table in TABLES}


def test_a_catalog_moves_to_postgresql_and_back(tmp_path: Path, catalog: Catalog) -> None:
    """Stopped and continued; ids, checksums and times are the same, and new ids follow the old ones."""
    with Catalog.create(tmp_path / "a.db") as first, Catalog.create(tmp_path / "b.db") as back:
        record(first, "a", 3)
        keep(
            first,
            Outcome(source("a2"), known_hash="a1"),
            Outcome(source("torn"), NewImage("torn", 1, failure_reason="TORN", failure_message="a\0b")),
        )
        first.set_metadata(
            "file", {"file:///a0": {"z": [1, 1.0, 2**70, True, None, "é\\u0000"], "a": {"b": "2024-05-01"}}}
        )
        first.remove([2])
        first.replace_skipped(["file:///"], (), (), {"file:///film.mp4": Skip(".mp4", "a video")})
        first.record_generation(4, 2)
        first.finish_run(first.start_run(), {"images": 3, "seconds": 0.1})
        move(first, catalog, most=5)
        move(first, catalog)
        move(catalog, back)
        rows = everything(first)
        answers = first.images(), first.shards(), first.live_places()

        assert all(rows.values())
        assert everything(catalog) == everything(back) == rows
        assert (catalog.images(), catalog.shards(), catalog.live_places()) == answers
        for each in (first, catalog, back):
            record(each, "new", 2)
            each.start_run()
            each.set_metadata("file", {"file:///new0": {"x": 1}})
            assert each.check() == []
            assert [image.id for image in each.images()] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_row_does_not_move(url: str, catalog: Catalog) -> None:
    """Its damage would be sealed no more than here, but nobody would know where it came from."""
    record(catalog, "a")
    raw(url, "UPDATE images SET width = 1")

    with pytest.raises(CollectionCorrupt, match=r"image 1 of .* does not match its checksum"):
        catalog.export_rows("images")


@contextmanager
def both(folder: Path, url: str) -> Iterator[list[Catalog]]:
    with Catalog.create(folder / "catalog.db") as sqlite, Catalog.create(url) as postgresql:
        yield [sqlite, postgresql]


_TEXT = st.sampled_from(
    ["a", "A", "B", "é", "z", "Z", "_", "a b", "😀", "\uffff", "5", "true", "2024-05-01", "%", "\\"]
) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
_VALUES = st.recursive(
    _TEXT | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)
_METADATA = st.dictionaries(st.sampled_from(["label", "year", "a.b", "tags"]), _VALUES, max_size=3)
_FIELDS = st.sampled_from(
    ["label", "year", "metadata.'a.b'", "tags", "uri", "mime_type", "sha256", "metadata.label", "missing"]
)


@st.composite
def _comparisons(draw: st.DrawFn) -> str:
    text = draw(_TEXT).replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
    star = draw(st.sampled_from([("", ""), ("", ""), ("*", ""), ("", "*"), ("*", "*")]))
    value = draw(st.just(f'"{star[0]}{text}{star[1]}"') | st.sampled_from(["5", "-1.5", "1e300", "true", "*"]))
    operator = ":" if value == "*" else draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">=", ":"]))
    return f"{draw(_FIELDS)} {operator} {value}"


_FILTERS = st.recursive(
    _comparisons() | st.sampled_from(["width_px > 5", "byte_count >= 9999999999", 'create_time > "2020-01-01"']),
    lambda inner: (
        st.builds("({}) AND ({})".format, inner, inner)
        | st.builds("({}) OR ({})".format, inner, inner)
        | st.builds("NOT ({})".format, inner)
    ),
    max_leaves=4,
)


def test_both_databases_answer_alike(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Random metadata and texts, random filters: the same ids, records and checksums, and no fault in either."""
    name = postgres.database()

    @settings(
        max_examples=12,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(
        st.lists(st.tuples(_TEXT, _TEXT, _METADATA), min_size=1, max_size=6),
        st.lists(_FILTERS, min_size=8, max_size=20),
    )
    def alike(images: list[tuple[str, str, dict[str, Any]]], filters: list[str]) -> None:
        raw(postgres.url(name), "TRUNCATE shards, images, sources, properties RESTART IDENTITY CASCADE")
        with both(tmp_path_factory.mktemp("alike"), postgres.url(name)) as catalogs:
            for catalog in catalogs:
                keep(catalog, *(outcome(row, *image) for row, image in enumerate(images)))
            answers = [
                [[catalog.ids_where(parse(each), state=None).tolist() for each in filters] for catalog in catalogs],
                [
                    [(i.id, i.uris, i.content_hash, i.mime_type, dict(i.user_metadata)) for i in catalog.images()]
                    for catalog in catalogs
                ],
                [[(row["uri"], row["checksum"]) for row in catalog.export_rows("sources")] for catalog in catalogs],
                [catalog.vanished(["file:///"], []) for catalog in catalogs],
                [catalog.check() for catalog in catalogs],
            ]
        for sqlite, postgresql in answers:
            assert sqlite == postgresql
        assert answers[-1] == [[], []]

    alike()
    postgres.drop(name)


def answers(catalog: Catalog, filters: list[str]) -> dict[str, list[Any]]:
    return {
        "filtered": [(each, catalog.ids_where(parse(each), state=None).tolist()) for each in filters],
        "images": [(image.id, image.uris, image.mime_type, repr(image.user_metadata)) for image in catalog.images()],
        "sources": [(row["uri"], row["checksum"]) for row in catalog.export_rows("sources")],
        "vanished": catalog.vanished(["file:///"], []),
        "faults": catalog.check(),
    }


def outcome(row: int, uri: str, mime_type: str, metadata: dict[str, Any]) -> Outcome:
    content = None if row % 3 == 2 else f"{row}"
    described_at = None if content is None else row - row // 3
    image = NewImage(content, 10**row, 4 + row, 480, mime_type, described_at, failure_message="x\0")
    return Outcome(source(f"{uri}{row}"), image, metadata={"file": metadata})


def test_a_text_with_nul_is_refused_alike(tmp_path: Path, url: str) -> None:
    """PostgreSQL cannot keep it; nothing is written to either."""
    with both(tmp_path, url) as catalogs:
        for catalog in catalogs:
            with pytest.raises(InvalidRequest, match="NUL"):
                keep(catalog, Outcome(source("a\0b"), described("a")))
            with pytest.raises(InvalidRequest, match="NUL"):
                keep(catalog, Outcome(source("a"), described("a"), metadata={"file": {"x": ["\0"]}}))
            assert (catalog.images(), catalog.shards()) == ([], [])


def test_a_chunk_is_few_statements(catalog: Catalog) -> None:
    """Each is a way to the server and back: their number does not grow with the images."""
    asked: list[str] = []
    event.listen(catalog._engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    shard = ShardRecord("00000001.safetensors", 200, 1, "0")
    outcomes = [
        Outcome(source(f"{row}"), described(f"{row}", row), metadata={"exif": {"n": row}}) for row in range(200)
    ]

    catalog.record_chunk(outcomes, shard)

    assert len(asked) < 16
