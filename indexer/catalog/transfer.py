"""Export and import all rows, table by table, to copy a catalog to another database of any kind."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from sqlalchemy import Column, Table, func, insert, select

from whatwhere.indexer.catalog.checksums import SEALED, verify
from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.tables import (
    Base,
    GenerationRow,
    ImageRow,
    PropertyRow,
    RunRow,
    ShardRow,
    SkippedRow,
    SourceRow,
)

Row: TypeAlias = Mapping[str, Any]  # by column name; times with time zone, JSON as Python values
# In this order no row refers to a later one.
TABLES = tuple(
    row.__tablename__ for row in (ShardRow, ImageRow, SourceRow, PropertyRow, SkippedRow, RunRow, GenerationRow)
)
_SEALED = {row.__tablename__ for row in SEALED}


class RowTransfer(Database):
    """Unchanged rows, with their ids, checksums and times.

    To copy a catalog to an empty one: for each of TABLES, in order, call `export_rows` from the target's `last_key` on
    and `import_rows` until no rows are left. A stopped copy continues in the same way. No process may write to the
    source meanwhile.
    """

    def export_rows(self, table: str, after: int = 0, count: int = 1000) -> list[Row]:
        """Return up to `count` rows of a table whose key is above `after`, ordered by key.

        The key is the id, for generations the number. Raises CollectionCorrupt if a row does not match its checksum.
        """
        from_table, key = _table(table)
        query = select(from_table).where(key > after).order_by(key).limit(count)
        with self._asking() as connection:
            rows: list[Row] = [row._asdict() for row in connection.execute(query)]
            for row in rows if table in _SEALED else ():
                verify(from_table, row)
        return rows

    def import_rows(self, table: str, rows: Iterable[Row]) -> None:
        """Write rows from `export_rows` in one transaction; later rows are numbered after them."""
        values = [dict(row) for row in rows]
        if not values:
            return
        with self._writing() as session:
            session.connection().execute(insert(_table(table)[0]), values)
            self._backend.loaded(session.connection(), table)

    def last_key(self, table: str) -> int:
        """Return the highest key of a table, 0 for an empty one."""
        _, key = _table(table)
        with self._asking() as connection:
            return connection.scalar(select(func.max(key))) or 0


def _table(name: str) -> tuple[Table, Column[int]]:
    table = Base.metadata.tables[name]
    (key,) = table.primary_key.columns
    return table, key
