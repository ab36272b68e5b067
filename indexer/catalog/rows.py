"""Load rows by many keys."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.tables import Base

AT_ONCE = 500  # values in one query: databases limit their number
_Value = TypeVar("_Value")
_Row = TypeVar("_Row", bound=Base)


def rows_of(
    session: Session, table: type[_Row], column: InstrumentedAttribute[_Value], values: Iterable[_Value]
) -> Iterator[_Row]:
    """Yield the rows of a table whose column has one of these values, 500 values per query."""
    for some in batched(values, AT_ONCE):
        yield from session.scalars(select(table).where(column.in_(some)))
