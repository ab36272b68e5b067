"""Parse filters in the language of AIP-160 (https://google.aip.dev/160) into expression trees.

`label = "boat" AND taken_time > "2024-01-01" AND NOT (tags:"draft" OR year < 1990)`
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TypeAlias

from whatwhere.indexer.errors import InvalidFilter
from whatwhere.indexer.metadata.limits import MAX_LENGTH
from whatwhere.indexer.storage.readable import composed

MAX_DEPTH = 32  # nested parentheses
MAX_TERMS = 128  # comparisons
_REMEDY = "ask in several parts"
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL and lone surrogates: no database stores them
# Closed or not: if an unclosed quote did not match, the search would restart at each later quote (quadratic time).
_QUOTED_TO_THE_END = r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|' + r"'(?:[^'\\]|\\.)*+(?:'|\\?\Z)"


@dataclass(frozen=True)
class Literal:
    """A value as written; `open_start` and `open_end` mark a wildcard (*) at that end, which makes it text."""

    text: str
    quoted: bool = False
    open_start: bool = False
    open_end: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the value has a wildcard."""
        return self.open_start or self.open_end

    @cached_property
    def number(self) -> int | float | None:
        """The value as a finite number, or None; quoted digits are text. Digits alone are an integer up to 64 bits."""
        if self.quoted or self.is_open or not _NUMBER.fullmatch(self.text):
            return None
        if _INTEGER.fullmatch(self.text) and -(2**63) <= (integer := int(self.text)) < 2**63:
            return integer
        number = float(self.text)
        return number if math.isfinite(number) else None

    @cached_property
    def boolean(self) -> bool | None:
        """The value as a boolean, or None; quoted `true` and `false` are text."""
        return None if self.quoted or self.is_open else {"true": True, "false": False}.get(self.text)

    @cached_property
    def moment(self) -> datetime | None:
        """The value, quoted or not, as a time in UTC, or None."""
        return None if self.is_open else moment_of(self.text)


@dataclass(frozen=True)
class Comparison:
    """A comparison of a field (a dotted name) with a value by =, !=, <, <=, >, >= or : (has)."""

    field: str
    operator: str
    literal: Literal

    @property
    def is_presence(self) -> bool:
        """Whether this is `field:*`, true if the image has the field."""
        return self.operator == ":" and not self.literal.text and self.literal.is_open


@dataclass(frozen=True)
class Not:
    """The negation of an expression."""

    expression: "Expression"


@dataclass(frozen=True)
class And:
    """The conjunction of its parts."""

    parts: "tuple[Expression, ...]"


@dataclass(frozen=True)
class Or:
    """The disjunction of its parts."""

    parts: "tuple[Expression, ...]"


Expression: TypeAlias = Comparison | Not | And | Or


def parse(text: str) -> Expression:
    """Parse a filter into an expression tree; its texts are in the normalization form of the stored ones (NFC).

    Raises InvalidFilter if the text has a syntax error or exceeds MAX_LENGTH, MAX_DEPTH or MAX_TERMS.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidFilter(
            f"filter has {len(text):,} characters: the limit is {MAX_LENGTH:,}, {_REMEDY}", field="filter"
        )
    if _NO_TEXT.search(text):
        raise InvalidFilter("filter contains a NUL character or a lone surrogate: remove it", field="filter")
    text = composed(text)
    if _depth(text) > MAX_DEPTH:
        raise InvalidFilter(f"filter nests parentheses more than {MAX_DEPTH} deep", field="filter")
    from whatwhere.indexer.metadata.filter_grammar import parse_composed  # noqa: PLC0415 - few commands filter

    expression = parse_composed(text)
    terms = _terms(expression)
    if terms > MAX_TERMS:
        raise InvalidFilter(f"filter has {terms} comparisons: the limit is {MAX_TERMS}, {_REMEDY}", field="filter")
    return expression


def moment_of(text: str) -> datetime | None:
    """Parse an RFC 3339 timestamp or ISO date to a time in UTC (the default zone); return None for other text."""
    if not _TIME.fullmatch(text):
        return None
    try:
        read = datetime.fromisoformat(text.upper())
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # 2024-02-31, or the UTC time is outside years 1 to 9999
        return None


def _depth(text: str) -> int:
    """Return the maximum nesting depth of unquoted parentheses."""
    deepest = depth = 0
    for character in re.sub(_QUOTED_TO_THE_END, "", text, flags=re.DOTALL):
        depth += {"(": 1, ")": -1}.get(character, 0)
        deepest = max(deepest, depth)
    return deepest


def _terms(expression: Expression) -> int:
    if isinstance(expression, Comparison):
        return 1
    if isinstance(expression, Not):
        return _terms(expression.expression)
    return sum(map(_terms, expression.parts))
