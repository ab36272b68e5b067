"""Write filters as text, with absolute paths where a person wrote relative ones."""

import re
from dataclasses import replace

from whatwhere.indexer.metadata.filter_translation import URI_FIELD
from whatwhere.indexer.metadata.filters import And, Comparison, Expression, Literal, Not, Or, parse
from whatwhere.indexer.storage.readable import absolute_place

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


def with_absolute_uris(text: str) -> str:
    """Return a filter whose relative paths, compared with `uri`, are absolute (see `storage.readable.absolute_place`).

    A filter without any is returned unchanged. Raises InvalidFilter as `parse` does.
    """
    expression = parse(text)
    absolute = _with_absolute_uris(expression)
    return text if absolute == expression else written(absolute)


def fields_of(text: str) -> set[str]:
    """Return the names of the fields that a filter compares. Raises InvalidFilter as `parse` does."""
    return _fields_of(parse(text))


def _fields_of(expression: Expression) -> set[str]:
    if isinstance(expression, Comparison):
        return {expression.field}
    parts = (expression.expression,) if isinstance(expression, Not) else expression.parts
    return set().union(*map(_fields_of, parts))


def _with_absolute_uris(expression: Expression) -> Expression:
    if isinstance(expression, Not):
        return Not(_with_absolute_uris(expression.expression))
    if isinstance(expression, And | Or):
        return type(expression)(tuple(map(_with_absolute_uris, expression.parts)))
    literal = expression.literal
    if expression.field != URI_FIELD or literal.open_start:
        return expression
    text = absolute_place(literal.text)
    return expression if text == literal.text else replace(expression, literal=replace(literal, text=text, quoted=True))


def written(expression: Expression) -> str:
    """Return an expression as the text of a filter, the inverse of `parse`."""
    if isinstance(expression, Comparison):
        name = expression.field if _PLAIN.fullmatch(expression.field) else f'"{_escaped(expression.field)}"'
        return f"{name} {expression.operator} {_written(expression.literal)}"
    if isinstance(expression, Not):
        return f"NOT {_part(expression.expression)}"
    return (" AND " if isinstance(expression, And) else " OR ").join(map(_part, expression.parts))


def _part(expression: Expression) -> str:
    return written(expression) if isinstance(expression, Comparison) else f"({written(expression)})"


def _written(literal: Literal) -> str:
    quoted = literal.quoted or not literal.text
    text = f"{'*' * literal.open_start}{_escaped(literal.text) if quoted else literal.text}{'*' * literal.open_end}"
    return f'"{text}"' if quoted else text


def _escaped(text: str) -> str:
    return re.sub(r'([\\"*])', r"\\\1", text)
