"""Define the entries of a corpus."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Expected(Enum):
    """Name the outcome of indexing a file."""

    GOOD = "good"
    FAILED = "failed"
    EITHER = "either"  # no checksum detects the damage: indexed, or failed with a reason
    IGNORED = "ignored"  # not called as an image is, or not reached


@dataclass(frozen=True)
class Entry:
    """Hold a file of the corpus. `name` is a path below its folder; bytes that are not UTF-8 are surrogate escapes."""

    name: str
    expected: Expected
    make: Callable[[Path], object]
    reason: str | None = None  # the failure's, where FAILED
    vanishes: bool = False  # to be deleted when the run has listed its files and not yet read this one


def entry_of(name: str, content: bytes, expected: Expected, reason: str | None = None) -> Entry:
    """Return the entry of an ordinary file; the reason of a failure is UNREADABLE_IMAGE by default."""
    if expected is Expected.FAILED:
        reason = reason or "UNREADABLE_IMAGE"
    return Entry(name, expected, lambda path: path.write_bytes(content), reason)
