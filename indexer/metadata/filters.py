"""Parse filters in the language of AIP-160 (https://google.aip.dev/160) into expression trees.

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
from whatwhere.indexer.storage.readable import composed

MAX_DEPTH = 32  # nested parentheses
MAX_TERMS = 128  # comparisons
# Words of other languages, and in lower case; an unquoted word is the name of a field.
_MEANT = {
    **dict.fromkeys(("and", "&&", "&"), "AND"),
    **dict.fromkeys(("or", "||", "|"), "OR"),
    **dict.fromkeys(("not", "!"), "NOT"),
    "in": 'field = "a" OR field = "b"',
    "like": 'field = "boat*"',
    **dict.fromkeys(("==", "is"), "="),
    "<>": "!=",
}
_WORD = r"(?<![\w.])[A-Za-z]+|==|<>|&&?|\|\|?|!(?!=)"
_LAST = rf"(?:{_WORD})\s*\Z"
_EXAMPLE = 'example: label = "boat" AND NOT (year < 1990 OR tags:"draft")'
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL and lone surrogates: no database stores them
_KEYWORD = r"(?:AND|OR|NOT)(?![^\s()])"
_QUOTED = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'"
# Closed or not: if an unclosed quote did not match, the search would restart at each later quote (quadratic time).
_QUOTED_TO_THE_END = r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|' + r"'(?:[^'\\]|\\.)*+(?:'|\\?\Z)"

# As in AIP-160, OR binds tighter than AND, and adjacent terms are joined by AND. A word before a comparator is a FIELD,
# a word after it a value; the parser's context decides.
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
    def number(self) -> float | None:
        """The value as a finite number, or None; quoted digits are text."""
        if self.quoted or self.is_open or not _NUMBER.fullmatch(self.text):
            return None
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
        raise InvalidFilter(f"filter has {len(text):,} characters: the limit is {MAX_LENGTH:,}", field="filter")
    if _NO_TEXT.search(text):
        raise InvalidFilter("filter contains a NUL character or a lone surrogate: remove it", field="filter")
    text = composed(text)
    if _depth(text) > MAX_DEPTH:
        raise InvalidFilter(f"filter nests parentheses more than {MAX_DEPTH} deep", field="filter")
    try:
        expression: Expression = _PARSER.parse(text)  # type: ignore[assignment] # made by the transformer
    except UnexpectedInput as error:
        raise InvalidFilter(_syntax_message(text, error), field="filter") from None
    terms = _terms(expression)
    if terms > MAX_TERMS:
        raise InvalidFilter(f"filter has {terms} comparisons: the limit is {MAX_TERMS}", field="filter")
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


def _syntax_message(text: str, error: UnexpectedInput) -> str:
    """Return the message of a syntax error: position, reason and an example."""
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    place = len(text) if at_end else error.pos_in_stream or 0
    found = text[place : place + 20]
    where = "at the end" if at_end else f"at {found!r}, character {place + 1}"
    if (written := _written_otherwise(text, place)) is not None:
        word, meant = written
        why = f"{word!r} is written {meant}"
    elif isinstance(error, UnexpectedToken) and "COMPARATOR" in error.expected:
        why = "a field name must be followed by one of = != < <= > >= : (bare words and functions are not supported)"
    elif found.startswith(("'", '"')):
        why = "a quoted string must be closed, and must be a field name or a value"
    else:
        why = "join comparisons with AND, OR, NOT and parentheses"
    return f"filter has a syntax error {where}: {why}; {_EXAMPLE}"


def _written_otherwise(text: str, place: int) -> tuple[str, str] | None:
    """Return the word of another language at, or right before, the place of an error, and how it is written here."""
    before = text[max(0, place - 20) : place]
    for found in (re.match(_WORD, text[place:]), re.match(_WORD, text[max(0, place - 1) :]), re.search(_LAST, before)):
        word = "" if found is None else found[0].strip()
        meant = _MEANT.get(word.lower())
        if meant is not None and word != meant:
            return word, meant
    return None


@v_args(inline=True)
class _Reader(Transformer[Token, Expression]):
    """Builds the expression during parsing, without a parse tree and without recursion."""

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
