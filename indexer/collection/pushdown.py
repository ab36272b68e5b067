"""Translate images and filters to facts and conditions, which a vector store can compare itself.

Filters have the meaning that `metadata.filter_translation` defines. The catalog answers filters that need more than
tokens and bounds, for example a part of a text.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import get_args

from whatwhere.indexer.catalog.metadata import BOOL, MEMBER, NUMBER, STRING, TIME, MetadataValue, properties_of
from whatwhere.indexer.catalog.records import ImageRecord
from whatwhere.indexer.errors import InvalidFilter
from whatwhere.indexer.metadata.filter_translation import TEXT_FIELDS, TIME_FIELD, FilterTranslator
from whatwhere.indexer.metadata.filters import Expression, Literal
from whatwhere.indexer.storage.readable import readable
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

_NUMBERS = MappingProxyType({"width_px": "width", "height_px": "height", "byte_count": "byte_count"})
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
        return _FactsTranslator().translate(expression)
    except (_Inexpressible, InvalidFilter):
        return None


# --- facts --------------------------------------------------------------------------------------------------------


def _of_fields(image: ImageRecord) -> Iterator[tuple[str, str, str]]:
    """Yield (token, key of a bound or an empty string, value)."""
    for name, attribute in _NUMBERS.items():
        yield _comparable(_FIELD, name, NUMBER, float(getattr(image, attribute)))
    yield _comparable(_FIELD, TIME_FIELD, NUMBER, _microseconds(image.created_at))
    hashes = [] if image.content_hash is None else [image.content_hash]
    uris = [readable(uri) for uri in image.uris]
    for name, texts in zip(TEXT_FIELDS, (uris, [image.mime_type], hashes), strict=True):
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
        number = found.number_value if found.integer_value is None else found.integer_value
        yield _comparable(_NAME, found.name, found.kind, number)


def _comparable(space: str, name: str, kind: str, value: int | float | str) -> tuple[str, str, str]:
    return _equal(space, name, kind, value), token_of(space, name, kind), _ordered(value)


def _equal(space: str, name: str, kind: str, value: int | float | str) -> str:
    return token_of(space, name, _EQUAL, kind, value if isinstance(value, str) else ordered_number(value))


def _ordered(value: int | float | str) -> str:
    return ordered_text(value) if isinstance(value, str) else ordered_number(value)


def _microseconds(moment: datetime) -> float:
    return round(moment.timestamp() * 1_000_000)


# --- filters ------------------------------------------------------------------------------------------------------


class _FactsTranslator(FilterTranslator[Condition]):
    """Conditions on tokens and bounds; raises _Inexpressible for what they do not say."""

    def every(self, parts: Sequence[Condition]) -> Condition:
        return Every(tuple(parts))

    def some(self, parts: Sequence[Condition]) -> Condition:
        return Some(tuple(parts))

    def none_of(self, part: Condition) -> Condition:
        return opposite(part)

    def number_is(self, field: str, operator: str, value: float | datetime) -> Condition:
        return _compared(
            _FIELD, field, NUMBER, operator, _microseconds(value) if isinstance(value, datetime) else value
        )

    def text_is_there(self, field: str) -> Condition:
        return Has(token_of(_FIELD, field, _THERE))

    def text_is_filled(self, field: str) -> Condition:
        return Has(token_of(_FIELD, field, _FILLED))

    def text_matches(self, field: str, literal: Literal) -> Condition:
        return _compared(_FIELD, field, _TEXT, "=", _closed(literal))

    def text_is(self, field: str, operator: str, text: str) -> Condition:
        return _compared(_FIELD, field, _TEXT, operator, text)

    def name_is_there(self, name: str) -> Condition:
        return Has(token_of(_NAME, name, _THERE))

    def any_value(self, name: str, ways: Sequence[Condition]) -> Condition:
        return ways[0] if len(ways) == 1 else Some(tuple(ways))

    def member_matches(self, name: str, literal: Literal) -> Condition:
        return Has(token_of(_NAME, name, MEMBER, _closed(literal)))

    def value_matches(self, name: str, literal: Literal) -> Condition:
        return _compared(_NAME, name, _TEXT, "=", _closed(literal))

    def value_is_number(self, name: str, operator: str, value: int | float) -> Condition:
        return _compared(_NAME, name, NUMBER, operator, value)

    def value_is_truth(self, name: str, value: bool) -> Condition:
        return _compared(_NAME, name, BOOL, "=", float(value))

    def value_is_moment(self, name: str, operator: str, seconds: float) -> Condition:
        return _compared(_NAME, name, TIME, operator, seconds)

    def value_is_text(self, name: str, operator: str, text: str, *, times_too: bool) -> Condition:
        return _compared(_NAME, name, _TEXT if times_too else STRING, operator, text)


def _compared(space: str, name: str, kind: str, operator: str, value: int | float | str) -> Condition:
    if operator == "=":
        return Has(_equal(space, name, kind, value))
    if isinstance(value, str) and len(value) >= CUT_AT:
        raise _Inexpressible  # cut texts cannot be compared with longer ones
    comparator: Comparator = next(known for known in get_args(Comparator) if known == operator)
    return Bound(token_of(space, name, kind), comparator, _ordered(value))


def _closed(literal: Literal) -> str:
    if literal.is_open:
        raise _Inexpressible
    return literal.text
