"""Record which files and folders the last scan of each place passed over."""

from collections.abc import Collection, Mapping
from typing import Protocol

from sqlalchemy import delete, func, insert, select

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.records import SkippedRecord
from whatwhere.indexer.catalog.rows import AT_ONCE
from whatwhere.indexer.catalog.tables import Base, SkippedRow

_TABLE = Base.metadata.tables[SkippedRow.__tablename__]
_ROWS_AT_ONCE = 10_000  # in one transaction: readers and other writers never wait for a million


class Why(Protocol):
    """Why a file was passed over."""

    @property
    def kind(self) -> str:
        """The kind, for counting."""

    @property
    def reason(self) -> str:
        """The reason, for people."""


class SkippedTable(Database):
    """Files and folders that were passed over. They are no images: nothing else in the catalog refers to them."""

    def replace_skipped(
        self,
        places: Collection[str],
        unlisted: Collection[str],
        taken: Collection[str],
        skipped: Mapping[str, Why],
    ) -> None:
        """Record `skipped`, by URI, in place of all earlier ones below the scanned `places`.

        Earlier ones below `unlisted` folders stay. Earlier ones among `taken`, the URIs of images, are deleted wherever
        they are. Only differences are written. Afterwards a killed call is completed by the next one.
        """
        scanned = frozenset(places)
        folders = tuple(place for place in scanned if place.endswith("/"))
        out_of_sight = tuple(unlisted)
        stale: list[int] = []
        recorded: set[str] = set()
        query = select(_TABLE).execution_options(yield_per=_ROWS_AT_ONCE)
        with self._reading() as connection:
            for row in connection.execute(query):
                why = skipped.get(row.uri)
                if why is not None and (why.kind, why.reason) == (row.kind, row.reason):
                    recorded.add(row.uri)
                elif (
                    why is not None
                    or row.uri in taken
                    or row.uri in scanned
                    or (row.uri.startswith(folders) and not row.uri.startswith(out_of_sight))
                ):
                    stale.append(row.id)
        for ids in batched(stale, _ROWS_AT_ONCE):
            with self._writing() as session:
                for some in batched(ids, AT_ONCE):
                    session.connection().execute(delete(_TABLE).where(_TABLE.c.id.in_(some)))
        new = (
            {"uri": uri, "kind": why.kind, "reason": why.reason} for uri, why in skipped.items() if uri not in recorded
        )
        for rows in batched(new, _ROWS_AT_ONCE):
            with self._writing() as session:
                session.connection().execute(insert(_TABLE), rows)

    def skipped(self, limit: int | None = None) -> list[SkippedRecord]:
        """Return what was passed over, by URI."""
        query = select(_TABLE.c.uri, _TABLE.c.kind, _TABLE.c.reason).order_by(_TABLE.c.uri).limit(limit)
        with self._asking() as connection:
            return [SkippedRecord(*row) for row in connection.execute(query)]

    def skipped_kinds(self) -> dict[str, int]:
        """Return how many files and folders of each kind were passed over, the most frequent first."""
        query = select(_TABLE.c.kind, func.count()).group_by(_TABLE.c.kind).order_by(func.count().desc(), _TABLE.c.kind)
        with self._asking() as connection:
            return {kind: count for kind, count in connection.execute(query)}  # noqa: C416 - mypy does not see a row as a pair
