"""Conditions that a vector store can check itself, on facts that are stored with each vector.

`Facts` are tokens, and bounds: the least and the greatest of several values. Both contain only hexadecimal digits, so
no text of a caller has to be quoted in the query language of a store, and text is ordered by code point.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, TypeAlias

MOST_TOKENS = 4096  # maximum number of elements of an array in Milvus
MOST_BOUNDS_BYTES = 60_000  # of the 65,536 bytes of a JSON value in Milvus
CUT_AT = 64  # characters: texts are compared up to this length

Comparator: TypeAlias = Literal["<", "<=", ">", ">="]
_OPPOSITE: Mapping[Comparator, Comparator] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


@dataclass(frozen=True)
class Facts:
    """Facts of an image: sorted tokens, and for each key the least and the greatest value."""

    tokens: tuple[str, ...] = ()
    bounds: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def digest(self) -> int:
        """A hash of 64 bits of the facts."""
        text = json.dumps([self.tokens, sorted(self.bounds.items())])
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")

    @property
    def fit(self) -> bool:
        """Whether the facts are small enough for a store."""
        size = sum(len(key) + len(low) + len(high) + 24 for key, (low, high) in self.bounds.items())
        return len(self.tokens) <= MOST_TOKENS and size <= MOST_BOUNDS_BYTES


@dataclass(frozen=True)
class Has:
    """The token is present, or absent if not `wanted`."""

    token: str
    wanted: bool = True


@dataclass(frozen=True)
class Bound:
    """A value of the key compares with `value` like this; if not `wanted`, none does, or there is no value."""

    key: str
    comparator: Comparator
    value: str
    wanted: bool = True


@dataclass(frozen=True)
class Every:
    """All parts hold; true without parts."""

    parts: "tuple[Condition, ...]" = ()


@dataclass(frozen=True)
class Some:
    """Any part holds; false without parts."""

    parts: "tuple[Condition, ...]" = ()


Condition: TypeAlias = Has | Bound | Every | Some


def opposite(condition: Condition) -> Condition:
    """Return the negation of a condition.

    It applies no NOT to a comparison with a missing value, because stores treat that differently.
    """
    if isinstance(condition, Has):
        return Has(condition.token, not condition.wanted)
    if isinstance(condition, Bound):
        return Bound(condition.key, condition.comparator, condition.value, not condition.wanted)
    parts = tuple(map(opposite, condition.parts))
    return Some(parts) if isinstance(condition, Every) else Every(parts)


def holds(condition: Condition, facts: Facts) -> bool:
    """Tell whether a condition holds for facts."""
    if isinstance(condition, Has):
        return (condition.token in facts.tokens) is condition.wanted
    if isinstance(condition, Bound):
        bounds = facts.bounds.get(condition.key)
        return (bounds is not None and _compares(bounds, condition)) is condition.wanted
    combined = all if isinstance(condition, Every) else any
    return combined(holds(part, facts) for part in condition.parts)


def _compares(bounds: tuple[str, str], condition: Bound) -> bool:
    low, high = bounds
    comparator, value = condition.comparator, condition.value
    if comparator.startswith(">"):
        return high > value or (comparator == ">=" and high == value)
    return low < value or (comparator == "<=" and low == value)


def milvus_expression(condition: Condition) -> str:
    """Return a condition as an expression of Milvus, for rows with the fields `image`, `tokens` and `bounds`."""
    if isinstance(condition, Has):
        return f'{"" if condition.wanted else "not "}array_contains(tokens, "{condition.token}")'
    if isinstance(condition, Bound):
        return _milvus_bound(condition)
    joint, nothing = (" and ", "image >= 0") if isinstance(condition, Every) else (" or ", "image < 0")
    return joint.join(f"({milvus_expression(part)})" for part in condition.parts) or nothing


def _milvus_bound(condition: Bound) -> str:
    # Some value is greater than another if the greatest is; no value is if the greatest is not.
    end = "high" if condition.comparator.startswith(">") else "low"
    comparator = condition.comparator if condition.wanted else _OPPOSITE[condition.comparator]
    compared = f'bounds["{end}_{condition.key}"] {comparator} "{condition.value}"'
    return compared if condition.wanted else f'(not array_contains(tokens, "{condition.key}")) or {compared}'


def token_of(*said: object) -> str:
    """Return a hash of 32 hexadecimal digits of JSON values."""
    return blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def ordered_number(value: int | float) -> str:
    """Return hexadecimal digits that sort like the numbers, infinities included, NaN excluded.

    They are 16 for the float64 at or below a number, and 3 more for the rest of an integer that no float64 equals.
    """
    near = float(value)
    near = math.nextafter(near, -math.inf) if near > value else near
    (bits,) = struct.unpack(">q", struct.pack(">d", near + 0.0))  # -0.0 is 0.0
    digits = f"{bits + 2**63 if bits >= 0 else 2**63 - 1 - (bits + 2**63):016x}"
    return digits if near == value else f"{digits}{value - int(near):03x}"


def ordered_text(text: str) -> str:
    """Return hexadecimal digits that sort like the code points of the first CUT_AT characters."""
    return text[:CUT_AT].encode().hex()
