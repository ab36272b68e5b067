"""Translate images and filters to facts and conditions, which a vector store can compare itself.

Filters have the meaning that indexer/catalog/filtering.py defines. The catalog answers filters that need more than
tokens and bounds, for example a part of a text.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from types import MappingProxyType
from typing import get_args

from whatwhere.indexer.catalog.metadata import BOOL, MEMBER, NUMBER, STRING, TIME, MetadataValue, properties_of
from whatwhere.indexer.catalog.records import ImageRecord
from whatwhere.indexer.metadata.filters import And, Comparison, Expression, Literal, Not
from whatwhere.indexer.vectors.conditions import (
    CUT_AT,
    Bound,
    Comparator,
    Condition,
    Every,
    Facts,
    Has,
    Some,
    opposite,
    ordered_number,
    ordered_text,
    token_of,
)

_METADATA = "metadata."
_NUMBERS = MappingProxyType({"width_px": "width", "height_px": "height", "byte_count": "byte_count"})
_TEXTS = ("uri", "mime_type", "sha256")
_TIME = "create_time"
# Namespaces, so that metadata with the name of an image field stays separate.
_FIELD, _NAME = "field", "name"
# Meaning of a token for a name: it exists, it has a non-empty text, it has this value.
_THERE, _FILLED, _EQUAL = "there", "filled", "equal"
_TEXT = "text"  # strings and times as text; STRING are strings that are not times


class _Inexpressible(Exception):
    """The filter needs the catalog."""


def facts_of(image: ImageRecord) -> Facts:
    """Return the facts of an image that filters can use."""
    tokens: set[str] = set()
    values: defaultdict[str, list[str]] = defaultdict(list)
    for said, key, value in (*_of_fields(image), *_of_metadata(image)):
        tokens.add(said)
        if key:
            tokens.add(key)
            values[key].append(value)
    return Facts(tuple(sorted(tokens)), {key: (min(found), max(found)) for key, found in values.items()})


def condition_of(expression: Expression) -> Condition | None:
    """Return a filter as a condition on facts, None if only the catalog can answer or reject it."""
    try:
        return _translated(expression)
    except _Inexpressible:
        return None


# --- facts --------------------------------------------------------------------------------------------------------


def _of_fields(image: ImageRecord) -> Iterator[tuple[str, str, str]]:
    """Yield (token, key of a bound or an empty string, value)."""
    for name, attribute in _NUMBERS.items():
        yield _comparable(_FIELD, name, NUMBER, float(getattr(image, attribute)))
    yield _comparable(_FIELD, _TIME, NUMBER, _microseconds(image.created_at))
    hashes = [] if image.content_hash is None else [image.content_hash]
    for name, texts in zip(_TEXTS, (image.uris, [image.mime_type], hashes), strict=True):
        for text in texts:
            yield token_of(_FIELD, name, _THERE), "", ""
            yield _comparable(_FIELD, name, _TEXT, text)
            if text:
                yield token_of(_FIELD, name, _FILLED), "", ""


def _of_metadata(image: ImageRecord) -> Iterator[tuple[str, str, str]]:
    for found in properties_of(image.user_metadata):
        yield token_of(_NAME, found.name, _THERE), "", ""
        yield from _of_property(found)


def _of_property(found: MetadataValue) -> Iterator[tuple[str, str, str]]:
    if found.kind == MEMBER:
        yield token_of(_NAME, found.name, MEMBER, found.text_value), "", ""
    if found.kind in (STRING, TIME):
        yield _comparable(_NAME, found.name, _TEXT, found.text_value or "")
    if found.kind == STRING:
        yield _comparable(_NAME, found.name, STRING, found.text_value or "")
    if found.number_value is not None:
        yield _comparable(_NAME, found.name, found.kind, found.number_value)


def _comparable(space: str, name: str, kind: str, value: float | str) -> tuple[str, str, str]:
    return _equal(space, name, kind, value), token_of(space, name, kind), _ordered(value)


def _equal(space: str, name: str, kind: str, value: float | str) -> str:
    return token_of(space, name, _EQUAL, kind, value if isinstance(value, str) else ordered_number(value))


def _ordered(value: float | str) -> str:
    return ordered_text(value) if isinstance(value, str) else ordered_number(value)


def _microseconds(moment: datetime) -> float:
    return round(moment.timestamp() * 1_000_000)


# --- filters ------------------------------------------------------------------------------------------------------


def _translated(expression: Expression) -> Condition:
    if isinstance(expression, Comparison):
        return _of_comparison(expression)
    if isinstance(expression, Not):
        return opposite(_translated(expression.expression))
    parts = tuple(map(_translated, expression.parts))
    return Every(parts) if isinstance(expression, And) else Some(parts)


def _of_comparison(comparison: Comparison) -> Condition:
    name, literal = comparison.field, comparison.literal
    if name in _NUMBERS:
        return _of_number(comparison, literal.number)
    if name == _TIME:
        return _of_number(comparison, None if literal.moment is None else _microseconds(literal.moment))
    if name in _TEXTS:
        return _of_text(comparison)
    return _of_name(name.removeprefix(_METADATA), comparison)


def _of_number(comparison: Comparison, value: float | None) -> Condition:
    if comparison.is_presence:
        return Every()
    if value is None:
        raise _Inexpressible  # the catalog raises the error
    if comparison.operator == "!=":
        return opposite(Has(_equal(_FIELD, comparison.field, NUMBER, value)))
    if comparison.operator in "=:":
        return Has(_equal(_FIELD, comparison.field, NUMBER, value))
    return _bound(_FIELD, comparison.field, NUMBER, comparison.operator, value)


def _of_text(comparison: Comparison) -> Condition:
    name, literal = comparison.field, comparison.literal
    if comparison.is_presence:
        return Has(token_of(_FIELD, name, _FILLED))
    if comparison.operator not in ("=", ":", "!="):
        return _bound(_FIELD, name, _TEXT, comparison.operator, _whole(literal))
    equal = Has(_equal(_FIELD, name, _TEXT, _closed(literal)))
    if comparison.operator == "!=":
        return Every((Has(token_of(_FIELD, name, _THERE)), opposite(equal)))
    return equal


def _of_name(name: str, comparison: Comparison) -> Condition:
    there = Has(token_of(_NAME, name, _THERE))
    if comparison.is_presence:
        return there
    if comparison.operator == "!=":
        return Every((there, opposite(Some((*_equals(name, comparison.literal),)))))
    if comparison.operator == ":":
        member = Has(token_of(_NAME, name, MEMBER, _closed(comparison.literal)))
        return Some((*_equals(name, comparison.literal), member))
    if comparison.operator == "=":
        return Some((*_equals(name, comparison.literal),))
    return _ordered_by_name(name, comparison)


def _equals(name: str, literal: Literal) -> Iterable[Condition]:
    """Yield conditions for equality as text, number, boolean and time."""
    yield Has(_equal(_NAME, name, _TEXT, _closed(literal)))
    for kind, value in ((NUMBER, literal.number), (BOOL, literal.boolean), (TIME, _seconds(literal))):
        if value is not None:
            yield Has(_equal(_NAME, name, kind, float(value)))


def _ordered_by_name(name: str, comparison: Comparison) -> Condition:
    operator, literal = comparison.operator, comparison.literal
    if literal.number is not None:
        return _bound(_NAME, name, NUMBER, operator, literal.number)
    seconds = _seconds(literal)
    if seconds is None:
        return _bound(_NAME, name, _TEXT, operator, _whole(literal))
    by_text = _bound(_NAME, name, STRING, operator, _whole(literal))
    return Some((by_text, _bound(_NAME, name, TIME, operator, seconds)))


def _bound(space: str, name: str, kind: str, operator: str, value: float | str) -> Condition:
    if isinstance(value, str) and len(value) >= CUT_AT:
        raise _Inexpressible  # cut texts cannot be compared with longer ones
    comparator: Comparator = next(known for known in get_args(Comparator) if known == operator)
    return Bound(token_of(space, name, kind), comparator, _ordered(value))


def _closed(literal: Literal) -> str:
    if literal.is_open:
        raise _Inexpressible
    return literal.text


def _whole(literal: Literal) -> str:
    return f"{'*' * literal.open_start}{literal.text}{'*' * literal.open_end}"


def _seconds(literal: Literal) -> float | None:
    return None if literal.moment is None else literal.moment.timestamp()
