"""Check metadata values and convert table cells to them."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.metadata.filters import moment_of

MAX_VALUES = 1000  # per image and origin, with list elements counted
MAX_DEPTH = 16

Metadata: TypeAlias = Mapping[str, object]


_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")  # JSON's: 007 is a name, not a number
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # without Python's 1_000, nan and inf
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DIGITS = re.compile(r"-?[0-9]+")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
LARGEST_EXACT = 2**53  # float64 rounds some integers above it: two ids would be one


def _int(cell: str) -> int:
    text = cell.strip()
    if not _INTEGER.fullmatch(text) or not is_64_bit(int(text)):
        raise ValueError("not a 64-bit integer")
    return int(text)


def _float(cell: str) -> float:
    text = cell.strip()
    if not _FLOAT.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError("not a finite number")
    return float(text)


def _bool(cell: str) -> bool:
    try:
        return _BOOLEANS[cell.strip().lower()]
    except KeyError:
        raise ValueError("neither true nor false") from None


def _time(cell: str) -> str:
    text = cell.strip()
    if moment_of(text) is None:
        raise ValueError("neither an RFC 3339 timestamp nor a date like 2024-05-31")
    return text


CONVERTS: dict[str, Callable[[str], object]] = {
    "string": str,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "time": _time,
}


class CellKinds:
    """Infers the narrowest type that fits all cells of a column; times are strings."""

    def __init__(self) -> None:
        self._some = False
        self._numbers = self._integers = self._fit = self._exact = self._finite = self._booleans = True

    def add(self, cell: str) -> None:
        """Take a cell into account; empty cells are ignored."""
        text = cell.strip()
        if not text:
            return
        self._some = True
        self._booleans = self._booleans and text.lower() in ("true", "false")
        self._numbers = self._numbers and bool(_NUMBER.fullmatch(text))
        if self._numbers:
            # Digits alone are an id as often as a number: one that its type cannot hold exactly makes the column text.
            digits = bool(_DIGITS.fullmatch(text))
            self._integers = self._integers and digits
            self._fit = self._fit and not (digits and not _fits(text))
            self._exact = self._exact and not (digits and not _fits(text, LARGEST_EXACT))
            self._finite = self._finite and math.isfinite(float(text))

    @property
    def kind(self) -> str:
        """The narrowest type that fits: int, float, bool or string."""
        if self._some and self._numbers:
            if self._integers:
                return "int" if self._fit else "string"
            return "float" if self._exact and self._finite else "string"
        return "bool" if self._some and self._booleans else "string"


def is_64_bit(number: int) -> bool:
    """Tell whether an integer has at most 64 bits, with its sign."""
    return -(2**63) <= number < 2**63


def _fits(digits: str, largest: int = 2**63) -> bool:
    """Tell whether digits are a small enough integer; by length first: Python refuses to convert thousands of them."""
    return len(digits) <= 20 and is_64_bit(number := int(digits)) and abs(number) <= largest


def checked(values: Metadata, where: str) -> dict[str, object]:
    """Return the values without nulls, after checking them.

    Raises InvalidRequest, its message prefixed with `where`, if a value cannot be stored or a limit is exceeded.
    """
    kept = {name: value for name, value in values.items() if value is not None}
    count = sum(1 for _ in _leaves(kept, where, MAX_DEPTH))
    if count > MAX_VALUES:
        raise InvalidRequest(f"{where}: {count} values, the limit is {MAX_VALUES}", field="metadata")
    return kept


def _leaves(value: object, where: str, depth: int) -> Iterator[object]:
    """Yield every value of lists and objects; raise InvalidRequest if JSON or the database cannot store one."""
    if depth < 0:
        raise InvalidRequest(f"{where}: values are nested more than {MAX_DEPTH} deep", field="metadata")
    if isinstance(value, dict):
        for name, item in value.items():
            if not name.strip() or not is_text(name):
                raise InvalidRequest(f"{where}: {name!r} is not a valid field name", field="metadata")
            yield from _leaves(item, f"{where}: {name}", depth - 1)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, where, depth - 1)
    else:
        too_large = isinstance(value, int) and not is_64_bit(value)
        if too_large or (isinstance(value, float) and not math.isfinite(value)):
            raise InvalidRequest(
                f"{where}: a number is not finite or exceeds 64 bits: write it in quotes, as text", field="metadata"
            )
        if isinstance(value, str) and not is_text(value):
            raise InvalidRequest(f"{where}: a string contains a NUL character or a lone surrogate", field="metadata")
        yield value


def is_text(text: str) -> bool:
    """Tell whether text can be stored: PostgreSQL rejects NUL, UTF-8 cannot encode lone surrogates."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def json_object(text: str | bytes, where: str) -> dict[str, object]:
    """Parse a JSON object; raise InvalidRequest, its message prefixed with `where`, for any other text."""
    try:
        values = json.loads(text)  # ValueError also for an integer of thousands of digits
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where}: not JSON ({error})", field="metadata") from error
    if not isinstance(values, dict):
        raise InvalidRequest(f"{where}: not a JSON object", field="metadata")
    return values
