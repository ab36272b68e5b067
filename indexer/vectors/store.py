"""The interface of vector stores: files of the collection, or a server."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from whatwhere.indexer.vectors.arrays import Ids, Vectors
from whatwhere.indexer.vectors.conditions import Condition, Facts

Only: TypeAlias = Ids | Condition  # the scope of a search: sorted ids, or a condition


@dataclass(frozen=True)
class SegmentEntry:
    """A vector file in the folder of segments."""

    file_name: str
    factory: str
    vector_count: int
    byte_count: int
    sha256: str


@dataclass(frozen=True)
class RemoteEntry:
    """Rows in a Milvus collection; `filterable` tells whether all facts of all images are stored."""

    collection: str
    index: str
    vector_count: int
    filterable: bool


@dataclass(frozen=True)
class Entry:
    """The data of one descriptor in one generation: files, or rows."""

    segments: tuple[SegmentEntry, ...] = ()
    remote: RemoteEntry | None = None


@dataclass(frozen=True)
class Generation:
    """A published generation: `removed` are ids in its files that are not live.

    `ids` [N] (int64, sorted) are the live ids, for a store without its own list.
    """

    number: int
    removed: Ids
    ids: Ids | None = None


def _no_ids() -> Ids:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Delta:
    """The change to generation `number` with these `ids` [N] (int64, sorted). The rest is for stores with facts.

    `known` are all ids of the generation `live`, `altered` the ids in both whose facts changed; `filterable` tells
    whether all facts fit.
    """

    number: int
    ids: Ids
    live: int = 0
    known: Ids = field(default_factory=_no_ids)
    altered: Ids = field(default_factory=_no_ids)
    filterable: bool = True


@dataclass(frozen=True)
class VectorSource:
    """Functions that return vectors [N, D] of a descriptor, in blocks, and facts, both in the order of the ids."""

    descriptor: str
    dimensions: int
    vectors: Callable[[Ids], Iterator[Vectors]]
    facts: Callable[[Ids], Iterable[Facts]]


class Index(Protocol):
    """The vectors of one descriptor in one generation. Safe to use from several threads."""

    @property
    def ids(self) -> Ids:
        """The live ids [N] (int64, sorted)."""

    def __len__(self) -> int:
        """Return the number of live vectors."""

    def vector(self, identifier: int) -> Vectors:
        """Return the vector [D] (float32) of one id. Raises KeyError if it is not live."""

    def search(self, query: Vectors, count: int, only: Only | None = None) -> tuple[Vectors, Ids]:
        """Return the scores [K] (float32) and ids [K] (int64) of the `count` best for a query [D], best first.

        Equal scores (see `arrays.cosines`) are ordered by id. `only` limits the search.
        """

    @property
    def filterable(self) -> bool:
        """Whether `search` accepts a condition."""

    def ping(self) -> None:
        """Raise VectorStoreUnavailable if the store does not answer."""


class VectorStore(Protocol):
    """Writes generations; readers of the live one are not affected.

    A generation is published when a manifest names its entries. A write that was killed before is cleaned up by the
    next one.
    """

    def knows(self, held: Entry) -> bool:
        """Tell whether the store wrote this entry and would write it in the same way now."""

    def write(self, origin: VectorSource, change: Delta, previous: Entry | None) -> Entry:
        """Write a descriptor's part of the next generation: the difference to `previous`, or all if None."""

    def open(self, held: Entry, generation: Generation) -> Index:
        """Open a descriptor's part of a generation. Raises CollectionCorrupt if it is damaged."""

    def forget(self, kept: Mapping[int, Sequence[Entry]]) -> None:
        """Delete all data that none of these generations uses."""
