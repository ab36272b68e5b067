"""All rows of the catalogue, table by table, to move it from one database to another of whichever kind."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from sqlalchemy import Column, Table, func, insert, select

from whatwhere.indexer.catalog.checksums import SEALED, verify
from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.tables import Base, GenerationRow, ImageRow, PropertyRow, RunRow, ShardRow, SourceRow

Row: TypeAlias = Mapping[str, Any]  # by column name; times with their zone, JSON as Python's values
# In this order no row refers to one that comes later.
TABLES = tuple(row.__tablename__ for row in (ShardRow, ImageRow, SourceRow, PropertyRow, RunRow, GenerationRow))
_SEALED = {row.__tablename__ for row in SEALED}


class RowTransfer(Database):
    """Rows as they are, with their ids, checksums and times.

    To move a catalogue: for each of TABLES, in their order, `export_rows` of the one from the other's `last_key` on and
    `import_rows` into it, until there are none. What is stopped goes on where it was. The other must be empty at first,
    and nobody may write to the first meanwhile.
    """

    def export_rows(self, table: str, after: int = 0, count: int = 1000) -> list[Row]:
        """Return the next rows of a table, at most `count`, by the key that is above `after`.

        The key is the id, of generations the number. CollectionCorrupt for a row that other hands changed.
        """
        from_table, key = _table(table)
        query = select(from_table).where(key > after).order_by(key).limit(count)
        with self._asking() as connection:
            rows: list[Row] = [row._asdict() for row in connection.execute(query)]
            for row in rows if table in _SEALED else ():
                verify(from_table, row)
        return rows

    def import_rows(self, table: str, rows: Iterable[Row]) -> None:
        """Write rows that `export_rows` gave, in one transaction; new rows are numbered after them."""
        values = [dict(row) for row in rows]
        if not values:
            return
        with self._writing() as session:
            session.connection().execute(insert(_table(table)[0]), values)
            self._backend.loaded(session.connection(), table)

    def last_key(self, table: str) -> int:
        """Return the highest key of a table, 0 when it is empty."""
        _, key = _table(table)
        with self._asking() as connection:
            return connection.scalar(select(func.max(key))) or 0


def _table(name: str) -> tuple[Table, Column[int]]:
    table = Base.metadata.tables[name]
    (key,) = table.primary_key.columns
    return table, key
