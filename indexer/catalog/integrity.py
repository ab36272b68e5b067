"""Check the integrity of the catalog: the database, its references, every row and redundant data."""

from collections import defaultdict
from collections.abc import Generator
from contextlib import closing
from itertools import islice
from typing import Any

from sqlalchemy import Connection, func, select

from whatwhere.indexer.catalog.checksums import SEALED, checksum_of
from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.metadata import MetadataValue, properties_of, united
from whatwhere.indexer.catalog.records import FAILED, INDEXED, REMOVED
from whatwhere.indexer.catalog.tables import Base, ImageRow, PropertyRow, ShardRow, SourceRow, same_json
from whatwhere.indexer.errors import CollectionCorrupt

MOST_OF_A_KIND = 50  # maximum number of faults of one kind in a report
_AT_ONCE = 1000
_STATES = (INDEXED, FAILED, REMOVED)
_PLACES = (SourceRow.id, SourceRow.image_id, SourceRow.origins.label("origins"))
_PROPERTIES = select(PropertyRow.image_id, *(getattr(PropertyRow, name) for name in MetadataValue._fields))


class IntegrityCheck(Database):
    """The check of the whole catalog, and the repair of its indexes."""

    def check(self) -> list[str]:
        """Return a sentence for every fault, at most the first 50 of a kind; an empty list for a sound catalog.

        It checks the database (pages and indexes on SQLite, references on both), the checksum of each row, the shards
        and sources of images, and their metadata against the sources and the rows of `properties`.
        """
        faults: list[str] = []
        for look in (self._kept, self._references, _rows, _images, _places, _metadata):
            try:
                with self._reading() as connection:
                    self._backend.take_time(connection)
                    # Closed with their results: a server would keep unread results until the end of the transaction.
                    with closing(look(connection)) as said:
                        found = list(islice(said, MOST_OF_A_KIND + 1))
            except CollectionCorrupt as error:
                found = [str(error)]
            faults += found[:MOST_OF_A_KIND]
            if len(found) > MOST_OF_A_KIND:
                faults.append(f"more faults of this kind: only the first {MOST_OF_A_KIND} are listed")
        return list(dict.fromkeys(faults))

    def reindex(self) -> None:
        """Rebuild all indexes of the database from its tables."""
        self._outside_transaction(self._backend.reindexing())

    def vacuum(self) -> None:
        """Free the space of deleted rows: for the file system on SQLite, for new rows on PostgreSQL."""
        self._outside_transaction(self._backend.vacuuming())

    def _kept(self, connection: Connection) -> Generator[str]:
        return self._backend.faults(connection, MOST_OF_A_KIND + 1)

    def _references(self, connection: Connection) -> Generator[str]:
        for table, row, target in self._backend.orphans(connection):
            yield f"{table} {row} refers to a missing row of {target}"


def _rows(connection: Connection) -> Generator[str]:
    for sealed in SEALED:
        table = Base.metadata.tables[sealed.__tablename__]
        with connection.execute(select(*table.c).execution_options(yield_per=_AT_ONCE)) as rows:
            for row in rows:
                values = row._asdict()
                if not _is_sealed(table.name, values):
                    yield f"{table.name} {values['id']} does not match its checksum"


def _is_sealed(table: str, values: dict[str, Any]) -> bool:
    try:
        return bool(values["checksum"] == checksum_of(table, values))
    except (TypeError, ValueError):  # a value of the wrong type for its column
        return False


def _images(connection: Connection) -> Generator[str]:
    query = (
        select(ImageRow.id, ImageRow.state, ImageRow.shard_row, ShardRow.image_count, ShardRow.file_name)
        .outerjoin(ImageRow.shard)
        .execution_options(yield_per=_AT_ONCE)
    )
    with_sources = set(connection.scalars(select(SourceRow.image_id).distinct()))
    with connection.execute(query) as rows:
        for id_, state, row, count, file_name in rows:
            if state not in _STATES:
                yield f"images/{id_} has the unknown state {state!r}"
            elif state == INDEXED and file_name is None:
                yield f"images/{id_} is indexed but has no shard"
            if file_name is not None and (row is None or not 0 <= row < count):
                yield f"images/{id_} is in row {row} of shard {file_name}, which has {count} rows"
            if state in (INDEXED, FAILED) and id_ not in with_sources:
                yield f"images/{id_} is {state} but has no source"


def _places(connection: Connection) -> Generator[str]:
    query = (
        select(ShardRow.file_name, ImageRow.shard_row, func.count())
        .join(ImageRow.shard)
        .group_by(ShardRow.file_name, ImageRow.shard_row)
        .having(func.count() > 1)
    )
    for file_name, row, count in connection.execute(query):
        yield f"row {row} of shard {file_name} is used by {count} images"


def _metadata(connection: Connection) -> Generator[str]:
    # One pass, not page by page by id: in a damaged table paging may never end.
    images = select(ImageRow.id, ImageRow.user_metadata).execution_options(yield_per=_AT_ONCE)
    with connection.execute(images) as rows:
        for part in rows.partitions():
            said: dict[int, Any] = {id_: metadata for id_, metadata in part}  # noqa: C416 - mypy does not see a row as a pair
            sources: dict[int, list[Any]] = defaultdict(list)
            for source in connection.execute(select(*_PLACES).where(SourceRow.image_id.in_(said))):
                sources[source.image_id].append(source)
            held: dict[int, set[MetadataValue]] = defaultdict(set)
            for id_, *value in connection.execute(_PROPERTIES.where(PropertyRow.image_id.in_(said))):
                held[id_].add(MetadataValue(*value))
            for id_, metadata in said.items():
                if not same_json(metadata, united(sources[id_])):
                    yield f"images/{id_} does not match the metadata of its sources"
                if held[id_] != set(properties_of(metadata)):
                    yield f"images/{id_} does not match its rows in properties"
