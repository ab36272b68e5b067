"""What a corpus consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Expected(Enum):
    """What becomes of a file."""

    GOOD = "good"
    FAILED = "failed"
    EITHER = "either"  # damage that the format has no checksum to see: taken, or listed with a reason, but not lost
    IGNORED = "ignored"  # not called as an image is, or not reached


@dataclass(frozen=True)
class Entry:
    """A file of the corpus. `name` is a path below its folder; bytes that are not UTF-8 are surrogate escapes."""

    name: str
    expected: Expected
    make: Callable[[Path], object]
    reason: str | None = None  # the failure's, where FAILED
    vanishes: bool = False  # to be deleted when the run has listed its files and not yet read this one


def entry_of(name: str, content: bytes, expected: Expected, reason: str | None = None) -> Entry:
    """Return the entry of an ordinary file; what fails is unreadable unless another reason is given."""
    if expected is Expected.FAILED:
        reason = reason or "UNREADABLE_IMAGE"
    return Entry(name, expected, lambda path: path.write_bytes(content), reason)
