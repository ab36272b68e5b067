"""What keeps the vectors of a collection's generations: files here, or a server elsewhere."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from whatwhere.indexer.vectors.arrays import Ids, Vectors
from whatwhere.indexer.vectors.conditions import Condition, Facts

Only: TypeAlias = Ids | Condition  # what a search is limited to: sorted ids, or those that meet a condition


@dataclass(frozen=True)
class SegmentEntry:
    """One file of vectors in the folder of segments."""

    file_name: str
    factory: str
    vector_count: int
    byte_count: int
    sha256: str


@dataclass(frozen=True)
class RemoteEntry:
    """Rows in a Milvus collection; `filterable` where all images' facts are there."""

    collection: str
    index: str
    vector_count: int
    filterable: bool


@dataclass(frozen=True)
class Entry:
    """What a store holds of one descriptor in one generation: files, or rows."""

    segments: tuple[SegmentEntry, ...] = ()
    remote: RemoteEntry | None = None


@dataclass(frozen=True)
class Generation:
    """A published generation: `removed` are the ids that its files hold and that are gone.

    `ids`, sorted, are those that can be found, for a store that holds no list of them.
    """

    number: int
    removed: Ids
    ids: Ids | None = None


def _nobody() -> Ids:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Delta:
    """To the generation `number`: `ids`, sorted, are all of it. The rest is for a store that keeps facts.

    `known` are all ids of the generation `live`, `altered` those of both whose facts changed; `filterable` is whether
    all facts fit.
    """

    number: int
    ids: Ids
    live: int = 0
    known: Ids = field(default_factory=_nobody)
    altered: Ids = field(default_factory=_nobody)
    filterable: bool = True


@dataclass(frozen=True)
class VectorSource:
    """Where the vectors [D] of a descriptor come from, in blocks and in the order of ids, and the facts beside them."""

    descriptor: str
    dimensions: int
    vectors: Callable[[Ids], Iterator[Vectors]]
    facts: Callable[[Ids], Iterable[Facts]]


class Index(Protocol):
    """One descriptor's vectors in one generation. Safe to use from several threads."""

    @property
    def ids(self) -> Ids:
        """The ids that can be found, sorted."""

    def __len__(self) -> int:
        """Return how many vectors can be found."""

    def vector(self, identifier: int) -> Vectors:
        """Return the vector [D] of one id, or raise KeyError."""

    def search(self, query: Vectors, count: int, only: Only | None = None) -> tuple[Vectors, Ids]:
        """Return the scores and ids of the `count` best of one query [D], best first; fewer when there are fewer.

        Equal scores stand by id; which of them are the last that still fit in is open.
        """

    @property
    def filterable(self) -> bool:
        """Whether `only` may be a condition."""

    def ping(self) -> None:
        """Raise VectorStoreUnavailable where a search would."""


class VectorStore(Protocol):
    """Writes generations so that whoever reads the live one sees exactly that until its end.

    What was written is published by whoever names it in a manifest; of a writing that was killed before, the next one
    leaves nothing.
    """

    def knows(self, held: Entry) -> bool:
        """Tell whether this is the store's own, and as it would write it now."""

    def write(self, origin: VectorSource, change: Delta, previous: Entry | None) -> Entry:
        """Write a descriptor's part of the next generation: the difference to `previous`, all where that is None."""

    def open(self, held: Entry, generation: Generation) -> Index:
        """Open a descriptor's part of a generation; CollectionCorrupt where it is not what was written."""

    def forget(self, kept: Mapping[int, Sequence[Entry]]) -> None:
        """Remove what none of these generations has."""
