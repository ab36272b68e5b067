"""Rows by many keys at once."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from whatwhere.indexer.catalog.tables import Base

AT_ONCE = 500  # values of one query: databases bound their number
_Item = TypeVar("_Item")
_Value = TypeVar("_Value")
_Row = TypeVar("_Row", bound=Base)


def rows_of(
    session: Session, table: type[_Row], column: InstrumentedAttribute[_Value], values: Iterable[_Value]
) -> Iterator[_Row]:
    """Yield the rows of a table whose column has one of these values, in few queries."""
    for some in in_groups(values, AT_ONCE):
        yield from session.scalars(select(table).where(column.in_(some)))


def in_groups(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of `size` items, the last one shorter."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
