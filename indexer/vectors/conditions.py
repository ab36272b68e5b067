"""Conditions that a store of vectors can check for itself, on what was stored beside a vector.

Beside each vector stand `Facts`: tokens, and bounds, the least and the greatest of several values. Both are hexadecimal
digits and nothing else, so no text of a caller ever stands in a store's own language, where quotes would have to be
escaped; and text in hexadecimal has the order of its code points.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, TypeAlias

MOST_TOKENS = 4096  # elements: as many as an array of Milvus may have
MOST_BOUNDS_BYTES = 60_000  # of 65,536 that a JSON value of Milvus may have
CUT_AT = 64  # characters; texts are compared up to here

Comparator: TypeAlias = Literal["<", "<=", ">", ">="]
_OPPOSITE: Mapping[Comparator, Comparator] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


@dataclass(frozen=True)
class Facts:
    """What is known of an image: tokens, sorted, and for each of the keys the least and the greatest value."""

    tokens: tuple[str, ...] = ()
    bounds: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def digest(self) -> int:
        """64 bits that differ where the facts do."""
        text = json.dumps([self.tokens, sorted(self.bounds.items())])
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")

    @property
    def fit(self) -> bool:
        """Whether a store takes so many."""
        size = sum(len(key) + len(low) + len(high) + 24 for key, (low, high) in self.bounds.items())
        return len(self.tokens) <= MOST_TOKENS and size <= MOST_BOUNDS_BYTES


@dataclass(frozen=True)
class Has:
    """A token is there, or not `wanted` and not there."""

    token: str
    wanted: bool = True


@dataclass(frozen=True)
class Bound:
    """Some value of a key compares so with `value`; or not `wanted`, and none does: where there is no value neither."""

    key: str
    comparator: Comparator
    value: str
    wanted: bool = True


@dataclass(frozen=True)
class Every:
    """All parts hold; always where there is none."""

    parts: "tuple[Condition, ...]" = ()


@dataclass(frozen=True)
class Some:
    """Any part holds; never where there is none."""

    parts: "tuple[Condition, ...]" = ()


Condition: TypeAlias = Has | Bound | Every | Some


def opposite(condition: Condition) -> Condition:
    """Return what holds where a condition does not.

    It has no NOT before what may be unknown, a comparison with a value that is not there: stores differ in that.
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
    """Return a condition in the language of Milvus, for rows with the fields `image`, `tokens` and `bounds`."""
    if isinstance(condition, Has):
        return f'{"" if condition.wanted else "not "}array_contains(tokens, "{condition.token}")'
    if isinstance(condition, Bound):
        return _milvus_bound(condition)
    joint, nothing = (" and ", "image >= 0") if isinstance(condition, Every) else (" or ", "image < 0")
    return joint.join(f"({milvus_expression(part)})" for part in condition.parts) or nothing


def _milvus_bound(condition: Bound) -> str:
    # Any value is greater than another where the greatest is, and none is where the greatest is not.
    end = "high" if condition.comparator.startswith(">") else "low"
    comparator = condition.comparator if condition.wanted else _OPPOSITE[condition.comparator]
    compared = f'bounds["{end}_{condition.key}"] {comparator} "{condition.value}"'
    return compared if condition.wanted else f'(not array_contains(tokens, "{condition.key}")) or {compared}'


def token_of(*said: object) -> str:
    """Return 32 hexadecimal digits for what is said: JSON values."""
    return blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def ordered_number(value: float) -> str:
    """Return 16 hexadecimal digits whose order is that of the numbers; infinities are numbers, NaN is none."""
    (bits,) = struct.unpack(">q", struct.pack(">d", value + 0.0))  # -0.0 is 0.0
    return f"{bits + 2**63 if bits >= 0 else 2**63 - 1 - (bits + 2**63):016x}"


def ordered_text(text: str) -> str:
    """Return hexadecimal digits whose order is that of the code points in the first CUT_AT characters."""
    return text[:CUT_AT].encode().hex()
