"""Split an iterable into batches: the only home of this, until Python 3.12 is the oldest that we support."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")


def batched(items: Iterable[_Item], size: int) -> Iterator[tuple[_Item, ...]]:
    """Yield tuples of `size` items, the last one shorter, as `itertools.batched` of Python 3.12 does.

    Items are taken only when their batch is asked for. Raises ValueError if `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"batches of {size} items: give 1 or more")
    remaining = iter(items)
    while batch := tuple(islice(remaining, size)):
        yield batch
