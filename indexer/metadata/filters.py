"""Filters in the language of AIP-160 (https://google.aip.dev/160): text → an expression of fields and values.

`label = "boat" AND taken_time > "2024-01-01" AND NOT (tags:"draft" OR year < 1990)`
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TypeAlias

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedInput, UnexpectedToken

from whatwhere.indexer.errors import InvalidFilter
from whatwhere.indexer.metadata.limits import MAX_LENGTH

MAX_DEPTH = 32  # parentheses within each other
MAX_TERMS = 128  # comparisons
_EXAMPLE = 'write for instance label = "boat" AND NOT (year < 1990 OR tags:"draft")'
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL and halves of characters, which no database takes
_KEYWORD = r"(?:AND|OR|NOT)(?![^\s()])"
_QUOTED = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'"
# Closed or not: a search that gives up at the end would begin again at each quote behind.
_QUOTED_TO_THE_END = r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|' + r"'(?:[^'\\]|\\.)*+(?:'|\\?\Z)"

# OR binds tighter than AND, and what stands side by side is joined by AND, as AIP-160 has it. Which terminal a word is
# depends on where it stands: a name before a comparator, a value after one.
_GRAMMAR = rf"""
?start: conjunction
conjunction: sequence (_AND sequence)*
?sequence: factor+                      -> conjunction
?factor: term (_OR term)*               -> disjunction
?term: _simple | (_NOT | _MINUS) _simple -> negation
_simple: comparison | "(" conjunction ")"
comparison: FIELD COMPARATOR (STRING | TEXT)

_AND.2: /AND(?![^\s()])/
_OR.2: /OR(?![^\s()])/
_NOT.2: /NOT(?![^\s()])/
_MINUS: "-"
COMPARATOR: "<=" | ">=" | "!=" | "=" | "<" | ">" | ":"
FIELD: /(?!{_KEYWORD})(?:{_QUOTED}|[^\s()"'=<>!:,.*+\\-][^\s()"'=<>!:,.\\]*)(?:\.(?:{_QUOTED}|[^\s()"'=<>!:,.\\]+))*/s
STRING: /{_QUOTED}/s
TEXT: /(?!{_KEYWORD})[^\s()"'=<>!:,\\]+/
%ignore /\s+/
"""


@dataclass(frozen=True)
class Literal:
    """A value as it was written. What is open at an end goes on there with anything, and is text and nothing else."""

    text: str
    quoted: bool = False
    open_start: bool = False
    open_end: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it stands for more than one text."""
        return self.open_start or self.open_end

    @cached_property
    def number(self) -> float | None:
        """The value as a number, None when it is none; quoted digits are text."""
        if self.quoted or self.is_open or not _NUMBER.fullmatch(self.text):
            return None
        number = float(self.text)
        return number if math.isfinite(number) else None

    @cached_property
    def boolean(self) -> bool | None:
        """The value as true or false, None when it is neither; in quotes they are text."""
        return None if self.quoted or self.is_open else {"true": True, "false": False}.get(self.text)

    @cached_property
    def moment(self) -> datetime | None:
        """The value as a time in UTC, quoted or not, None when it is none."""
        return None if self.is_open else moment_of(self.text)


@dataclass(frozen=True)
class Comparison:
    """A field, a dotted name, compared with a value by one of = != < <= > >= and : (has)."""

    field: str
    operator: str
    literal: Literal

    @property
    def is_presence(self) -> bool:
        """Whether it is `field:*`, which asks for the field to be there at all."""
        return self.operator == ":" and not self.literal.text and self.literal.is_open


@dataclass(frozen=True)
class Not:
    """What the expression does not let through."""

    expression: "Expression"


@dataclass(frozen=True)
class And:
    """What all parts let through."""

    parts: "tuple[Expression, ...]"


@dataclass(frozen=True)
class Or:
    """What any part lets through."""

    parts: "tuple[Expression, ...]"


Expression: TypeAlias = Comparison | Not | And | Or


def parse(text: str) -> Expression:
    """Return the expression; InvalidFilter for text that is none, or longer, deeper, of more terms than the limits."""
    if len(text) > MAX_LENGTH:
        raise InvalidFilter(f"filter has {len(text):,} characters: give at most {MAX_LENGTH:,}", field="filter")
    if _NO_TEXT.search(text):
        raise InvalidFilter("filter holds a NUL or half a character: give text", field="filter")
    if _depth(text) > MAX_DEPTH:
        raise InvalidFilter(f"filter has more than {MAX_DEPTH} parentheses within each other", field="filter")
    try:
        expression: Expression = _PARSER.parse(text)  # type: ignore[assignment] # made by the transformer
    except UnexpectedInput as error:
        raise InvalidFilter(_said(text, error), field="filter") from None
    terms = _terms(expression)
    if terms > MAX_TERMS:
        raise InvalidFilter(f"filter has {terms} comparisons: give at most {MAX_TERMS}", field="filter")
    return expression


def moment_of(text: str) -> datetime | None:
    """Return an RFC 3339 timestamp or ISO date as a time in UTC, which it is in without a zone; None for other text."""
    if not _TIME.fullmatch(text):
        return None
    try:
        read = datetime.fromisoformat(text.upper())
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # 2024-02-31, or a zone that leads out of the calendar
        return None


def _depth(text: str) -> int:
    """Return how deep parentheses lie within each other, quoted ones not counted."""
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


def _said(text: str, error: UnexpectedInput) -> str:
    """Return what is wrong with a filter, and where."""
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    place = len(text) if at_end else error.pos_in_stream or 0
    found = text[place : place + 20]
    where = "at its end" if at_end else f"at {found!r}, character {place + 1}"
    if isinstance(error, UnexpectedToken) and "COMPARATOR" in error.expected:
        why = "a name must be followed by one of = != < <= > >= : (words on their own and functions mean nothing here)"
    elif found.startswith(("'", '"')):
        why = "a quote must be closed, and stand where a name or a value may"
    else:
        why = "comparisons are joined by AND, OR, NOT and parentheses"
    return f"filter cannot be read {where}: {why}; {_EXAMPLE}"


@v_args(inline=True)
class _Reader(Transformer[Token, Expression]):
    """Builds the expression while the text is parsed: no tree, no recursion."""

    def conjunction(self, *parts: Expression) -> Expression:
        return parts[0] if len(parts) == 1 else And(parts)

    def disjunction(self, *parts: Expression) -> Expression:
        return parts[0] if len(parts) == 1 else Or(parts)

    def negation(self, expression: Expression) -> Expression:
        return Not(expression)

    def comparison(self, field: Token, operator: Token, value: Token) -> Expression:
        segments = re.findall(rf"(?:{_QUOTED}|[^.])+", field, flags=re.DOTALL)
        literal = _quoted(value) if value.type == "STRING" else _bare(value)
        return Comparison(".".join(map(_unquoted, segments)), str(operator), literal)


def _unquoted(segment: str) -> str:
    return _unescaped(segment[1:-1]) if segment[0] in "\"'" else segment


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _quoted(token: str) -> Literal:
    inner = token[1:-1]
    open_start = inner.startswith("*")
    rest = inner[1:] if open_start else inner
    open_end = re.fullmatch(r"(?:[^\\]|\\.)*\*", rest, flags=re.DOTALL) is not None  # not an escaped star
    return Literal(_unescaped(rest[:-1] if open_end else rest), True, open_start, open_end)


def _bare(token: str) -> Literal:
    rest = token.removeprefix("*")
    return Literal(rest.removesuffix("*"), False, rest != token, rest.endswith("*"))


_PARSER = Lark(_GRAMMAR, parser="lalr", transformer=_Reader())
