"""The grammar of filters, its parser, and the messages of syntax errors."""

import re

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedInput, UnexpectedToken

from whatwhere.indexer.errors import InvalidFilter
from whatwhere.indexer.metadata.filters import And, Comparison, Expression, Literal, Not, Or

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
_KEYWORD = r"(?:AND|OR|NOT)(?![^\s()])"
_QUOTED = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'"

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


def parse_composed(text: str) -> Expression:
    """Parse a filter of valid length and depth, in NFC. Raises InvalidFilter for a syntax error."""
    try:
        return _PARSER.parse(text)  # type: ignore[return-value] # made by the transformer
    except UnexpectedInput as error:
        raise InvalidFilter(_syntax_message(text, error), field="filter") from None


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
