"""What a filter means, said once: a walk over the expression that asks a back end for its conditions.

Fields are those of an image (uri, width_px, height_px, byte_count, mime_type, sha256, create_time); any other name, and
every one after `metadata.`, is one of its metadata. If an image lacks the field, every comparison is false, including
`!=`; of several values any may meet it, and `!=` is met by those that `=` is not.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Generic, TypeVar

from whatwhere.indexer.errors import InvalidFilter
from whatwhere.indexer.metadata.filters import And, Comparison, Expression, Literal, Not

NUMBER_FIELDS = ("width_px", "height_px", "byte_count")
TEXT_FIELDS = ("uri", "mime_type", "sha256")
TIME_FIELD = "create_time"
_METADATA = "metadata."  # before a name: the metadata of this name, also where an image has a field of it

_Condition = TypeVar("_Condition")


class FilterTranslator(ABC, Generic[_Condition]):
    """Translates filters to conditions of one kind. A back end says what its conditions are, not what filters mean.

    Operators are those of the language but `:` and `!=`, which the walk says by others.
    """

    def translate(self, expression: Expression) -> _Condition:
        """Return the condition that a filter is; InvalidFilter for a value of the wrong kind."""
        if isinstance(expression, Comparison):
            return self._comparison(expression)
        if isinstance(expression, Not):
            return self.none_of(self.translate(expression.expression))
        parts = [*map(self.translate, expression.parts)]
        return self.every(parts) if isinstance(expression, And) else self.some(parts)

    # --- what fields mean -----------------------------------------------------------------------------------------

    def _comparison(self, comparison: Comparison) -> _Condition:
        field, literal = comparison.field, comparison.literal
        if field in TEXT_FIELDS:
            return self._of_text(comparison)
        if field in NUMBER_FIELDS:
            return self._of_number(comparison, literal.number, "a number")
        if field == TIME_FIELD:
            return self._of_number(comparison, literal.moment, 'a time such as "2024-01-31T12:00:00Z"')
        return self._of_metadata(field.removeprefix(_METADATA), comparison)

    def _of_number(self, comparison: Comparison, value: float | datetime | None, kind: str) -> _Condition:
        """Every image has these."""
        field, operator = comparison.field, comparison.operator
        if comparison.is_presence:
            return self.every([])
        if value is None:
            raise InvalidFilter(f"{field} is {kind}, {whole(comparison.literal)!r} is none", field="filter")
        if operator == "!=":
            return self.none_of(self.number_is(field, "=", value))
        return self.number_is(field, "=" if operator == ":" else operator, value)

    def _of_text(self, comparison: Comparison) -> _Condition:
        field, operator, literal = comparison.field, comparison.operator, comparison.literal
        if comparison.is_presence:
            return self.text_is_filled(field)
        if operator in ("=", ":"):
            return self.text_matches(field, literal)
        if operator == "!=":
            return self.every([self.text_is_there(field), self.none_of(self.text_matches(field, literal))])
        return self.text_is(field, operator, whole(literal))

    # --- what metadata mean ---------------------------------------------------------------------------------------

    def _of_metadata(self, name: str, comparison: Comparison) -> _Condition:
        """Any value of this name: of several types it is compared with those of the literal's."""
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
        """Equal as text (times were written as text too), as a number, as a truth value, or as the same moment."""
        ways = [self.value_matches(name, literal)]
        if literal.number is not None:
            ways.append(self.value_is_number(name, "=", literal.number))
        if literal.boolean is not None:
            ways.append(self.value_is_truth(name, literal.boolean))
        if literal.moment is not None:
            ways.append(self.value_is_moment(name, "=", literal.moment.timestamp()))
        return ways

    def _ordered(self, name: str, operator: str, literal: Literal) -> list[_Condition]:
        """Before or after: a number among numbers, a moment among times, text among strings by code point.

        Text that is no whole time, such as "2024-05", is compared with the text of times too.
        """
        if literal.number is not None:
            return [self.value_is_number(name, operator, literal.number)]
        if literal.moment is None:
            return [self.value_is_text(name, operator, whole(literal), times_too=True)]
        return [
            self.value_is_text(name, operator, whole(literal), times_too=False),
            self.value_is_moment(name, operator, literal.moment.timestamp()),
        ]

    # --- the back end's side --------------------------------------------------------------------------------------

    @abstractmethod
    def every(self, parts: Sequence[_Condition]) -> _Condition:
        """Return: all of these hold; true for none."""

    @abstractmethod
    def some(self, parts: Sequence[_Condition]) -> _Condition:
        """Return: one of these holds, of which there is at least one."""

    @abstractmethod
    def none_of(self, part: _Condition) -> _Condition:
        """Return: this does not hold. True or false, never unknown."""

    @abstractmethod
    def number_is(self, field: str, operator: str, value: float | datetime) -> _Condition:
        """Return: a number of the image, or its time, compares so."""

    @abstractmethod
    def text_is_there(self, field: str) -> _Condition:
        """Return: the image has this text."""

    @abstractmethod
    def text_is_filled(self, field: str) -> _Condition:
        """Return: the image has this text, and it is not empty."""

    @abstractmethod
    def text_matches(self, field: str, literal: Literal) -> _Condition:
        """Return: a text of the image is the literal's, with anything at its open ends."""

    @abstractmethod
    def text_is(self, field: str, operator: str, text: str) -> _Condition:
        """Return: a text of the image stands before or after another, by code point."""

    @abstractmethod
    def name_is_there(self, name: str) -> _Condition:
        """Return: the image has metadata of this name."""

    @abstractmethod
    def any_value(self, name: str, ways: Sequence[_Condition]) -> _Condition:
        """Return: a value of this name meets one of these conditions on values, of which there is at least one."""

    # Conditions on one value of a name.

    @abstractmethod
    def member_matches(self, name: str, literal: Literal) -> _Condition:
        """Return: the value is an element of a list, and the literal's."""

    @abstractmethod
    def value_matches(self, name: str, literal: Literal) -> _Condition:
        """Return: the value is a text, or a time as it was written, and the literal's."""

    @abstractmethod
    def value_is_number(self, name: str, operator: str, value: float) -> _Condition:
        """Return: the value is a number and compares so."""

    @abstractmethod
    def value_is_truth(self, name: str, value: bool) -> _Condition:
        """Return: the value is this truth value."""

    @abstractmethod
    def value_is_moment(self, name: str, operator: str, seconds: float) -> _Condition:
        """Return: the value is a time and compares so, by seconds since 1970."""

    @abstractmethod
    def value_is_text(self, name: str, operator: str, text: str, *, times_too: bool) -> _Condition:
        """Return: the value is a string (with `times_too` also a time as written) and compares so by code point."""


def whole(literal: Literal) -> str:
    """Return the text with its stars, which mean nothing else in an order."""
    return f"{'*' * literal.open_start}{literal.text}{'*' * literal.open_end}"
