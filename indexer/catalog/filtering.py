"""Translate filter expressions to SQL conditions with bound values, and find the ids of matching images."""

from collections.abc import Callable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from operator import eq, ge, gt, le, lt, ne
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, and_, false, func, not_, or_, select, true, union_all

from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.metadata import BOOL, MEMBER, NUMBER, STRING, TIME
from whatwhere.indexer.catalog.records import INDEXED
from whatwhere.indexer.catalog.tables import ImageRow, PropertyRow, SourceRow
from whatwhere.indexer.errors import InvalidFilter
from whatwhere.indexer.metadata.filters import And, Comparison, Expression, Literal, Not, Or

_METADATA = "metadata."  # prefix: the metadata of this name, even if images have a field of the same name
_NUMBERS: Mapping[str, Any] = MappingProxyType(
    {"width_px": ImageRow.width, "height_px": ImageRow.height, "byte_count": ImageRow.byte_count}
)
_TEXTS: Mapping[str, Any] = MappingProxyType({"mime_type": ImageRow.mime_type, "sha256": ImageRow.content_hash})
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"=": eq, ":": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
)


class FilterQueries(Database):
    """Ids of images by filter expression or URI pattern."""

    def ids_where(self, expression: Expression, *, state: str | None = INDEXED) -> NDArray[np.int64]:
        """Return the ids [N] (int64, sorted) of images that match a filter.

        Fields are uri, width_px, height_px, byte_count, mime_type, sha256 and create_time; any other name is a metadata
        field. If an image lacks the field, every comparison is false, including `!=`. For a list, a comparison is true
        if any element matches; `!=` is true if no element is equal. Raises InvalidFilter if a value has the wrong type.
        """
        query = select(ImageRow.id).where(condition_of(expression)).order_by(ImageRow.id)
        if state is not None:
            query = query.where(ImageRow.state == state)
        with self._asking() as connection:
            return np.fromiter(connection.scalars(query), dtype=np.int64)

    def ids_of_uris(self, glob: str, *, state: str | None = INDEXED) -> NDArray[np.int64]:
        """Return the ids [N] (int64, sorted) of images with a URI that matches a shell pattern, case-sensitive."""
        query = select(ImageRow.id, SourceRow.uri).join(ImageRow.sources).order_by(ImageRow.id)
        if state is not None:
            query = query.where(ImageRow.state == state)
        with self._asking() as connection:
            found = dict.fromkeys(id_ for id_, uri in connection.execute(query) if fnmatchcase(uri, glob))
        return np.fromiter(found, dtype=np.int64)


def condition_of(expression: Expression) -> ColumnElement[bool]:
    """Return the condition on a row of `images`; every value is a bound parameter."""
    if isinstance(expression, And):
        return and_(*map(condition_of, expression.parts))
    if isinstance(expression, Or):
        return or_(*map(condition_of, expression.parts))
    if isinstance(expression, Not):
        return not_(condition_of(expression.expression))
    return _comparison(expression)


def _comparison(comparison: Comparison) -> ColumnElement[bool]:
    """Return a condition that is never NULL, because NOT NULL is NULL again."""
    field, literal = comparison.field, comparison.literal
    if field == "uri":
        return _of_uri(comparison)
    if field in _TEXTS:
        return func.coalesce(_of_text(_TEXTS[field], comparison), false())
    if field in _NUMBERS:
        return _of_number(_NUMBERS[field], comparison, literal.number, "a number")
    if field == "create_time":
        return _of_number(ImageRow.created_at, comparison, literal.moment, 'a time such as "2024-01-31T12:00:00Z"')
    return _of_metadata(field.removeprefix(_METADATA), comparison)


def _of_number(column: Any, comparison: Comparison, value: float | datetime | None, kind: str) -> ColumnElement[bool]:
    if comparison.is_presence:
        return true()
    if value is None:
        raise InvalidFilter(f"{comparison.field} is {kind}, but {_whole(comparison.literal)!r} is not", field="filter")
    return _compared(column, comparison.operator, value)


def _compared(column: Any, operator: str, value: object) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = _COMPARE[operator](column, value)
    return condition


def _of_text(column: Any, comparison: Comparison) -> ColumnElement[bool]:
    if comparison.is_presence:
        return _compared(column, "!=", "")
    if comparison.operator == "!=":
        return and_(column.is_not(None), not_(_matches(column, comparison.literal)))
    if comparison.operator in "=:":
        return _matches(column, comparison.literal)
    return _compared(column, comparison.operator, _whole(comparison.literal))


def _of_uri(comparison: Comparison) -> ColumnElement[bool]:
    """Compare all URIs of an image: any may match; `!=` is true if none is equal."""
    if comparison.operator == "!=":
        equal = Comparison(comparison.field, "=", comparison.literal)
        return and_(ImageRow.sources.any(), not_(_of_uri(equal)))
    images = select(SourceRow.image_id).where(_of_text(SourceRow.uri, comparison))
    return ImageRow.id.in_(images)


def _whole(literal: Literal) -> str:
    """Return the text with its stars, which are ordinary characters for `<` and `>`."""
    return f"{'*' * literal.open_start}{literal.text}{'*' * literal.open_end}"


def _matches(column: Any, literal: Literal) -> ColumnElement[bool]:
    """Match text with a literal and its open ends, case-sensitive: LIKE on SQLite is not."""
    text = literal.text
    if literal.open_start and literal.open_end:
        return _compared(func.replace(column, text, ""), "!=", column) if text else _compared(column, ">=", "")
    if literal.open_end:
        return func.substr(column, 1, len(text)) == text
    if literal.open_start:
        start = func.length(column) - len(text) + 1
        return and_(start >= 1, func.substr(column, start) == text)
    return _compared(column, "=", text)


# --- metadata -----------------------------------------------------------------------------------------------------


def _of_metadata(name: str, comparison: Comparison) -> ColumnElement[bool]:
    """Compare the values of this name that have a type of the literal."""
    if comparison.is_presence:
        return _some(name, true())
    if comparison.operator == "!=":
        return and_(_some(name, true()), not_(_some(name, *_equal(comparison.literal))))
    if comparison.operator == ":":
        member = and_(PropertyRow.kind == MEMBER, _matches(PropertyRow.text_value, comparison.literal))
        return _some(name, *_equal(comparison.literal), member)
    if comparison.operator == "=":
        return _some(name, *_equal(comparison.literal))
    return _some(name, *_ordered(comparison))


def _some(name: str, *ways: ColumnElement[bool]) -> ColumnElement[bool]:
    """Match if any value of this name meets one of the conditions: one query each, because each has its own index."""
    queries = [select(PropertyRow.image_id).where(PropertyRow.name == name, way) for way in ways]
    return ImageRow.id.in_(union_all(*queries) if len(queries) > 1 else queries[0])


def _equal(literal: Literal) -> list[ColumnElement[bool]]:
    """Match equal text (times are stored as text, too), an equal number or boolean, or the same moment."""
    ways = [and_(PropertyRow.kind.in_((STRING, TIME)), _matches(PropertyRow.text_value, literal))]
    ways += [
        and_(PropertyRow.kind == kind, PropertyRow.number_value == float(value))
        for kind, value in ((NUMBER, literal.number), (BOOL, literal.boolean), (TIME, _seconds(literal)))
        if value is not None
    ]
    return ways


def _ordered(comparison: Comparison) -> list[ColumnElement[bool]]:
    """Compare numbers with numbers, moments with times, text with strings by code point.

    An incomplete time such as "2024-05" is also compared with the text of times.
    """
    operator, literal = comparison.operator, comparison.literal
    if literal.number is not None:
        return [and_(PropertyRow.kind == NUMBER, _compared(PropertyRow.number_value, operator, literal.number))]
    by_text = _compared(PropertyRow.text_value, operator, _whole(literal))
    seconds = _seconds(literal)
    if seconds is None:
        return [and_(PropertyRow.kind.in_((STRING, TIME)), by_text)]
    by_time = _compared(PropertyRow.number_value, operator, seconds)
    return [and_(PropertyRow.kind == STRING, by_text), and_(PropertyRow.kind == TIME, by_time)]


def _seconds(literal: Literal) -> float | None:
    return None if literal.moment is None else literal.moment.timestamp()
