"""Translate filter expressions to SQL conditions with bound values, and find the ids of matching images."""

from collections.abc import Callable, Mapping, Sequence
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
from whatwhere.indexer.metadata.filter_translation import TIME_FIELD, URI_FIELD, FilterTranslator
from whatwhere.indexer.metadata.filters import Expression, Literal
from whatwhere.indexer.metadata.values import LARGEST_EXACT
from whatwhere.indexer.storage.readable import spellings

_NUMBERS: Mapping[str, Any] = MappingProxyType(
    {
        "width_px": ImageRow.width,
        "height_px": ImageRow.height,
        "byte_count": ImageRow.byte_count,
        TIME_FIELD: ImageRow.created_at,
    }
)
_TEXTS: Mapping[str, Any] = MappingProxyType({"mime_type": ImageRow.mime_type, "sha256": ImageRow.content_hash})
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
)
# The operators for a number instead of one that is a little greater, or less: between them is no value.
_AT_MOST: Mapping[str, str] = MappingProxyType({"<": "<=", "<=": "<=", ">": ">", ">=": ">"})
_AT_LEAST: Mapping[str, str] = MappingProxyType({"<": "<", "<=": "<", ">": ">=", ">=": ">="})


class FilterQueries(Database):
    """Ids of images by filter expression or URI pattern."""

    def ids_where(self, expression: Expression, *, state: str | None = INDEXED) -> NDArray[np.int64]:
        """Return the ids [N] (int64, sorted) of images that match a filter.

        `metadata.filter_translation` defines the meaning. Raises InvalidFilter if a value has the wrong type.
        """
        query = select(ImageRow.id).where(condition_of(expression)).order_by(ImageRow.id)
        if state is not None:
            query = query.where(ImageRow.state == state)
        with self._asking() as connection:
            return np.fromiter(connection.scalars(query), dtype=np.int64)

    def ids_of_uris(self, glob: str, *, state: str | None = INDEXED) -> NDArray[np.int64]:
        """Return the ids [N] (int64, sorted) of images with a URI that matches a shell pattern, case-sensitive.

        URIs are compared as `filter_translation` says. A pattern also matches a URI that equals it: brackets can be
        part of a name.
        """
        patterns = spellings(glob)
        shown = func.coalesce(SourceRow.readable_uri, SourceRow.uri)
        query = select(ImageRow.id, shown).join(ImageRow.sources).order_by(ImageRow.id)
        if state is not None:
            query = query.where(ImageRow.state == state)
        with self._asking() as connection:
            found = dict.fromkeys(
                id_
                for id_, uri in connection.execute(query)
                if uri in patterns or any(fnmatchcase(uri, pattern) for pattern in patterns)
            )
        return np.fromiter(found, dtype=np.int64)


def condition_of(expression: Expression) -> ColumnElement[bool]:
    """Return the condition on a row of `images`; every value is a bound parameter."""
    return _Rows().translate(expression)


class _Rows(FilterTranslator[ColumnElement[bool]]):
    """Conditions on rows that are true or false, never unknown: NOT would turn unknown into unknown."""

    def every(self, parts: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
        return and_(true(), *parts)

    def some(self, parts: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
        return or_(false(), *parts)

    def none_of(self, part: ColumnElement[bool]) -> ColumnElement[bool]:
        return not_(part)

    def number_is(self, field: str, operator: str, value: float | datetime) -> ColumnElement[bool]:
        return _compared(_NUMBERS[field], operator, value)

    def text_is_there(self, field: str) -> ColumnElement[bool]:
        return ImageRow.sources.any() if field == URI_FIELD else _TEXTS[field].is_not(None)

    def text_is_filled(self, field: str) -> ColumnElement[bool]:
        return self._on_text(field, lambda column: _compared(column, "!=", ""))

    def text_matches(self, field: str, literal: Literal) -> ColumnElement[bool]:
        return self._on_text(field, lambda column: _matches(column, literal))

    def text_is(self, field: str, operator: str, text: str) -> ColumnElement[bool]:
        return self._on_text(field, lambda column: _compared(column, operator, text))

    def _on_text(self, field: str, condition: Callable[[Any], ColumnElement[bool]]) -> ColumnElement[bool]:
        if field == URI_FIELD:  # any of an image's; not coalesce, which would use neither index
            as_stored = and_(SourceRow.readable_uri.is_(None), condition(SourceRow.uri))
            matches = or_(as_stored, condition(SourceRow.readable_uri))
            return ImageRow.id.in_(select(SourceRow.image_id).where(matches))
        return func.coalesce(condition(_TEXTS[field]), false())

    def name_is_there(self, name: str) -> ColumnElement[bool]:
        return self.any_value(name, [true()])

    def any_value(self, name: str, ways: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
        """Return: a value of this name meets one of the conditions. A query each, since each has its own index."""
        queries = [select(PropertyRow.image_id).where(PropertyRow.name == name, way) for way in ways]
        return ImageRow.id.in_(union_all(*queries) if len(queries) > 1 else queries[0])

    def member_matches(self, name: str, literal: Literal) -> ColumnElement[bool]:
        return and_(PropertyRow.kind == MEMBER, _matches(PropertyRow.text_value, literal))

    def value_matches(self, name: str, literal: Literal) -> ColumnElement[bool]:
        return and_(PropertyRow.kind.in_((STRING, TIME)), _matches(PropertyRow.text_value, literal))

    def value_is_number(self, name: str, operator: str, value: int | float) -> ColumnElement[bool]:
        return _of_kind(NUMBER, operator, value) if abs(value) < LARGEST_EXACT else _of_large(operator, int(value))

    def value_is_truth(self, name: str, value: bool) -> ColumnElement[bool]:
        return _of_kind(BOOL, "=", float(value))

    def value_is_moment(self, name: str, operator: str, seconds: float) -> ColumnElement[bool]:
        return _of_kind(TIME, operator, seconds)

    def value_is_text(self, name: str, operator: str, text: str, *, times_too: bool) -> ColumnElement[bool]:
        kind = PropertyRow.kind.in_((STRING, TIME)) if times_too else PropertyRow.kind == STRING
        return and_(kind, _compared(PropertyRow.text_value, operator, text))


def _of_kind(kind: str, operator: str, value: float) -> ColumnElement[bool]:
    return and_(PropertyRow.kind == kind, _compared(PropertyRow.number_value, operator, float(value)))


def _of_large(operator: str, value: int) -> ColumnElement[bool]:
    """Compare numbers with an integer that float64 may round: long integers exactly, others by their float64."""
    long, other = PropertyRow.integer_value, PropertyRow.number_value
    near = float(value)
    around = {"=": "=", "<": "<=", "<=": "<=", ">": ">=", ">=": ">="}[operator]  # for the index
    exact = or_(
        _with_near(long, operator, value, max(-(2**63), min(value, 2**63 - 1))),
        and_(long.is_(None), _with_near(other, operator, value, near)),
    )
    return and_(_of_kind(NUMBER, around, near), exact)


def _with_near(column: Any, operator: str, value: int, near: int | float) -> ColumnElement[bool]:
    """Compare a column with a number that its type may lack; `near` is the one beside it that the type has."""
    if near == value:
        return _compared(column, operator, near)
    if operator == "=":
        return false()
    return _compared(column, _AT_MOST[operator] if near < value else _AT_LEAST[operator], near)


def _compared(column: Any, operator: str, value: object) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = _COMPARE[operator](column, value)
    return condition


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
