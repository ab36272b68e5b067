"""Give sources other URIs, many at once, after their files were moved."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Text, cast, select
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.checksums import checksum_of_source
from whatwhere.indexer.catalog.database import Damage, Database
from whatwhere.indexer.catalog.metadata import with_origins
from whatwhere.indexer.catalog.removal import delete_sources
from whatwhere.indexer.catalog.rows import AT_ONCE, rows_of
from whatwhere.indexer.catalog.tables import Base, ImageRow, SourceRow
from whatwhere.indexer.storage.readable import readable_if_other

_SOURCES = Base.metadata.tables[SourceRow.__tablename__]
# The JSON as text: most rows have none, and need no parser.
_AS_TEXT = select(*(cast(column, Text) if column.name == "metadata" else column for column in _SOURCES.c))
_CHANGED = ("uri", "readable_uri", "vanished_at", "modified_ns", "checksum", "id")
_ROWS_AT_ONCE = 5000
_LAST = "\U0010ffff"  # sorts after every character of a URI
_ON_THE_WAY = "moving:"  # prefix of the URIs of rows that another row must leave first


class SourceEntry(NamedTuple):
    """A recorded source. `content_hash` is the SHA-256 of its image's file, None if it could never be read."""

    id: int
    uri: str
    image_id: int
    content_hash: str | None
    vanished: bool


class SourceMove(NamedTuple):
    """The new URI of a source. If not `exists`, its mark as vanished stays; if not `same_stamp`, it is read again."""

    id: int
    uri: str
    exists: bool = True
    same_stamp: bool = True


class RelocationTable(Database):
    """Sources whose files were moved."""

    def sources_from(self, start: str) -> Iterator[SourceEntry]:
        """Yield the sources whose URIs begin with `start`, ordered by id, from one state of the catalog."""
        columns = (SourceRow.id, SourceRow.uri, SourceRow.image_id, ImageRow.content_hash, SourceRow.vanished_at)
        query = select(*columns).join(SourceRow.image).where(SourceRow.uri >= start, SourceRow.uri < start + _LAST)
        with self._reading() as connection:
            self._backend.take_time(connection)
            rows = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query.order_by(SourceRow.id))
            for id_, uri, image_id, content_hash, vanished_at in rows:
                yield SourceEntry(id_, uri, image_id, content_hash, vanished_at is not None)

    def move_sources(
        self,
        moves: Sequence[SourceMove],
        merged: Mapping[int, int | None],
        on_progress: Callable[[int], None] = lambda _: None,
        *,
        overlapping: bool = False,
    ) -> None:
        """Set the URIs of sources and delete those of `merged`, in one transaction; `moves` are ordered by id.

        `merged` maps sources to those of the same image that take over their metadata where they have none, or to
        None. An image without sources becomes removed until a run finds its content again. `overlapping`: a new URI
        can be the old one of another move. `on_progress` gets the number of moves done. Raises CollectionCorrupt if a
        row does not match its checksum.
        """
        with self._writing() as session:
            connection = session.connection()
            self._backend.take_time(connection)
            _merge(session, merged)
            groups: Iterable[list[tuple[Any, ...]]] = _rewritten(connection, moves)
            if overlapping:
                groups = [*groups]  # each has its old URI, and its checksum is verified
                for rows in groups:
                    away = [(f"{_ON_THE_WAY}{row[-1]}", row[-1]) for row in rows]
                    self._backend.update_by_id(connection, _SOURCES, ("uri", "id"), away)
            done = 0
            for rows in groups:
                self._backend.update_by_id(connection, _SOURCES, _CHANGED, rows)
                done += len(rows)
                on_progress(done)


def _rewritten(connection: Connection, moves: Sequence[SourceMove]) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the new values of sources in groups, in the order of _CHANGED."""
    for some in batched(moves, _ROWS_AT_ONCE):
        by_id = {move.id: move for move in some}
        within = _SOURCES.c.id.between(some[0].id, some[-1].id)  # faster than a list of ids
        rows = []
        for row in connection.execute(_AS_TEXT.where(within)):
            move = by_id.get(row[0])
            if move is None:
                continue
            if row[6] != checksum_of_source(row):
                raise Damage(f"source {row[0]}", "does not match its checksum")
            id_, _, image_id, byte_count, modified_ns, metadata, _, vanished_at, _ = row
            modified_ns, vanished_at = modified_ns * move.same_stamp, None if move.exists else vanished_at
            other = readable_if_other(move.uri)
            new = (id_, move.uri, image_id, byte_count, modified_ns, metadata, None, vanished_at, other)
            rows.append((move.uri, other, vanished_at, modified_ns, checksum_of_source(new), id_))
        yield rows


def _merge(session: Session, merged: Mapping[int, int | None]) -> None:
    """Delete sources; their metadata goes to the sources that take their place."""
    for ids in batched(merged, AT_ONCE):
        sources = list(rows_of(session, SourceRow, SourceRow.id, ids))
        heirs = [heir for id_ in ids if (heir := merged[id_]) is not None]
        kept = {row.id: row for row in rows_of(session, SourceRow, SourceRow.id, heirs)}
        for source in sources:
            heir = merged[source.id]
            if heir is not None:
                kept[heir].origins = with_origins(source.origins, kept[heir].origins)
        delete_sources(session, sources)
        session.flush()
        session.expunge_all()
