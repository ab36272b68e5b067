"""Define the meaning of filters in one place: a walk over the expression that asks a back end for conditions.

Image fields are uri, width_px, height_px, byte_count, mime_type, sha256 and create_time; any other name, and every name
after `metadata.`, is a metadata field. If an image lacks the field, every comparison is false, including `!=`. If it
has several values, a comparison is true if any value matches; `!=` is true if none is equal. `uri` is compared as
people read it (`storage.readable`), with any spelling of the same place, and an absolute path is a file: URI.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Generic, TypeVar

from whatwhere.indexer.errors import InvalidFilter
from whatwhere.indexer.metadata.filters import And, Comparison, Expression, Literal, Not
from whatwhere.indexer.storage.readable import spellings

NUMBER_FIELDS = ("width_px", "height_px", "byte_count")
URI_FIELD = "uri"
TEXT_FIELDS = (URI_FIELD, "mime_type", "sha256")
TIME_FIELD = "create_time"
_METADATA = "metadata."  # prefix of a metadata field that has the name of an image field

_Condition = TypeVar("_Condition")


class FilterTranslator(ABC, Generic[_Condition]):
    """Translates filters to conditions of one kind; a back end builds conditions, and does not define meanings.

    Back ends get the operators `=`, `<`, `<=`, `>` and `>=`; `:` and `!=` are expressed with them.
    """

    def translate(self, expression: Expression) -> _Condition:
        """Return the condition of a filter. Raises InvalidFilter if a value has the wrong type."""
        if isinstance(expression, Comparison):
            return self._comparison(expression)
        if isinstance(expression, Not):
            return self.none_of(self.translate(expression.expression))
        parts = [*map(self.translate, expression.parts)]
        return self.every(parts) if isinstance(expression, And) else self.some(parts)

    # --- image fields ---------------------------------------------------------------------------------------------

    def _comparison(self, comparison: Comparison) -> _Condition:
        field, literal = comparison.field, comparison.literal
        if field in TEXT_FIELDS:
            return self._of_text(comparison)
        if field in NUMBER_FIELDS:
            number = None if literal.number is None else float(literal.number)
            return self._of_number(comparison, number, "a number")
        if field == TIME_FIELD:
            return self._of_number(comparison, literal.moment, 'a time such as "2024-01-31T12:00:00Z"')
        return self._of_metadata(field.removeprefix(_METADATA), comparison)

    def _of_number(self, comparison: Comparison, value: float | datetime | None, kind: str) -> _Condition:
        """Compare a field that every image has."""
        field, operator = comparison.field, comparison.operator
        if comparison.is_presence:
            return self.every([])
        if value is None:
            raise InvalidFilter(f"{field} is {kind}, but {whole(comparison.literal)!r} is not", field="filter")
        if operator == "!=":
            return self.none_of(self.number_is(field, "=", value))
        return self.number_is(field, "=" if operator == ":" else operator, value)

    def _of_text(self, comparison: Comparison) -> _Condition:
        field, operator, literal = comparison.field, comparison.operator, comparison.literal
        if comparison.is_presence:
            return self.text_is_filled(field)
        if operator in ("=", ":"):
            return self._equal_text(field, literal)
        if operator == "!=":
            return self.every([self.text_is_there(field), self.none_of(self._equal_text(field, literal))])
        text = whole(literal)
        return self.text_is(field, operator, spellings(text)[0] if field == URI_FIELD else text)

    def _equal_text(self, field: str, literal: Literal) -> _Condition:
        if field != URI_FIELD:
            return self.text_matches(field, literal)
        texts = spellings(literal.text, anchored=not literal.open_start)
        ways = [self.text_matches(field, replace(literal, text=text)) for text in texts]
        return ways[0] if len(ways) == 1 else self.some(ways)

    # --- metadata fields ------------------------------------------------------------------------------------------

    def _of_metadata(self, name: str, comparison: Comparison) -> _Condition:
        """Compare the values of this name that have the type of the literal."""
        operator, literal = comparison.operator, comparison.literal
        if comparison.is_presence:
            return self.name_is_there(name)
        if operator == "!=":
            return self.every(
                [self.name_is_there(name), self.none_of(self.any_value(name, self._equal(name, literal)))]
            )
        if operator == ":":
            return self.any_value(name, [*self._equal(name, literal), self.member_matches(name, literal)])
        if operator == "=":
            return self.any_value(name, self._equal(name, literal))
        return self.any_value(name, self._ordered(name, operator, literal))

    def _equal(self, name: str, literal: Literal) -> list[_Condition]:
        """Match equal text (times are stored as text, too), an equal number or boolean, or the same moment."""
        ways = [self.value_matches(name, literal)]
        if literal.number is not None:
            ways.append(self.value_is_number(name, "=", literal.number))
        if literal.boolean is not None:
            ways.append(self.value_is_truth(name, literal.boolean))
        if literal.moment is not None:
            ways.append(self.value_is_moment(name, "=", literal.moment.timestamp()))
        return ways

    def _ordered(self, name: str, operator: str, literal: Literal) -> list[_Condition]:
        """Compare numbers with numbers, moments with times, text with strings by code point.

        An incomplete time such as "2024-05" is also compared with the text of times.
        """
        if literal.number is not None:
            return [self.value_is_number(name, operator, literal.number)]
        if literal.moment is None:
            return [self.value_is_text(name, operator, whole(literal), times_too=True)]
        return [
            self.value_is_text(name, operator, whole(literal), times_too=False),
            self.value_is_moment(name, operator, literal.moment.timestamp()),
        ]

    # --- the back end ---------------------------------------------------------------------------------------------

    @abstractmethod
    def every(self, parts: Sequence[_Condition]) -> _Condition:
        """Return the conjunction; true without parts."""

    @abstractmethod
    def some(self, parts: Sequence[_Condition]) -> _Condition:
        """Return the disjunction of one part or more."""

    @abstractmethod
    def none_of(self, part: _Condition) -> _Condition:
        """Return the negation, which is never NULL."""

    @abstractmethod
    def number_is(self, field: str, operator: str, value: float | datetime) -> _Condition:
        """Compare a number of the image, or its time."""

    @abstractmethod
    def text_is_there(self, field: str) -> _Condition:
        """Match images that have this text."""

    @abstractmethod
    def text_is_filled(self, field: str) -> _Condition:
        """Match images whose text is not empty."""

    @abstractmethod
    def text_matches(self, field: str, literal: Literal) -> _Condition:
        """Match images whose text equals the literal; a star at either end matches any text."""

    @abstractmethod
    def text_is(self, field: str, operator: str, text: str) -> _Condition:
        """Compare a text of the image by code point."""

    @abstractmethod
    def name_is_there(self, name: str) -> _Condition:
        """Match images that have metadata of this name."""

    @abstractmethod
    def any_value(self, name: str, ways: Sequence[_Condition]) -> _Condition:
        """Match images with a value of this name that meets one of the conditions (one or more)."""

    # Conditions on one value of a name.

    @abstractmethod
    def member_matches(self, name: str, literal: Literal) -> _Condition:
        """Match list elements that equal the literal."""

    @abstractmethod
    def value_matches(self, name: str, literal: Literal) -> _Condition:
        """Match texts, and times as they were written, that equal the literal."""

    @abstractmethod
    def value_is_number(self, name: str, operator: str, value: int | float) -> _Condition:
        """Compare values that are numbers, exactly: integers of 64 bits do not become float64."""

    @abstractmethod
    def value_is_truth(self, name: str, value: bool) -> _Condition:
        """Match this boolean."""

    @abstractmethod
    def value_is_moment(self, name: str, operator: str, seconds: float) -> _Condition:
        """Compare values that are times, in seconds since 1970."""

    @abstractmethod
    def value_is_text(self, name: str, operator: str, text: str, *, times_too: bool) -> _Condition:
        """Compare strings, and with `times_too` also times as they were written, by code point."""


def whole(literal: Literal) -> str:
    """Return the text with its stars, which are ordinary characters for `<` and `>`."""
    return f"{'*' * literal.open_start}{literal.text}{'*' * literal.open_end}"
