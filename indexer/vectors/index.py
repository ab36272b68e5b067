"""An index of several segments."""

from dataclasses import dataclass, field
from functools import cached_property

import faiss
import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.vectors.arrays import Ids, Vectors, best_of, best_with_ties
from whatwhere.indexer.vectors.segment import Segment
from whatwhere.indexer.vectors.store import Only

# If a filter leaves at most this many vectors, all of them are compared, for every factory: exact, with complete
# results, within 20 ms (measured at 1024 dimensions).
COMPARED_AT_MOST = 10_000


@dataclass(frozen=True)
class VectorIndex:
    """Segments that are searched together; `removed` [N] (int64, sorted) are ids in them that are no longer live."""

    segments: tuple[Segment, ...]
    removed: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @cached_property
    def ids(self) -> Ids:
        """The live ids [N] (int64, sorted)."""
        held = [segment.ids for segment in self.segments]
        found = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *held]))
        return np.setdiff1d(found, self.removed, assume_unique=True) if len(self.removed) else found

    def __len__(self) -> int:
        """Return the number of live vectors."""
        return len(self.ids)

    def vector(self, identifier: int) -> Vectors:
        """Return the vector [D] (float32) of one id. Raises KeyError if it is not live."""
        wanted = np.array([identifier], dtype=np.int64)
        for segment in self.segments if identifier not in self._removed else ():
            try:
                return np.asarray(segment.vectors(wanted)[0], dtype=np.float32)
            except KeyError:
                continue  # in another segment
        raise KeyError(identifier)

    @cached_property
    def _removed(self) -> frozenset[int]:
        return frozenset(self.removed.tolist())

    @cached_property
    def _selectors(self) -> "tuple[faiss.IDSelector | None, ...]":
        """The selector of the live ids of each segment, None if all are live."""
        return tuple(
            _selector(segment, np.setdiff1d(segment.ids, self.removed))
            if np.isin(self.removed, segment.ids).any()
            else None
            for segment in self.segments
        )

    @property
    def filterable(self) -> bool:
        """Whether `search` accepts a condition: no, because files contain only vectors."""
        return False

    def ping(self) -> None:
        """Do nothing: files need no server."""

    def search(self, query: Vectors, count: int, only: Only | None = None) -> tuple[Vectors, Ids]:
        """Return the scores [K] (float32) and ids [K] (int64) of the `count` best for a query [D], best first.

        Equal scores are ordered by id. `only` [M] (int64, sorted) limits the search to these ids; the search is exact
        for up to COMPARED_AT_MOST of them.
        """
        if only is None:
            selectors = self._selectors
        else:
            assert isinstance(only, np.ndarray)  # not a condition, see `filterable`
            only = np.intersect1d(only, self.ids, assume_unique=True)
            if len(only) <= COMPARED_AT_MOST:
                return best_of([_compared(segment, query, only) for segment in self.segments], count)
            selectors = tuple(_selector(segment, only) for segment in self.segments)
        parts = list(zip(self.segments, selectors, strict=True))
        return best_with_ties(lambda asked: [part.search(query, asked, selector) for part, selector in parts], count)


def _compared(segment: Segment, query: Vectors, only: Ids) -> tuple[Vectors, Ids]:
    """Compare the query with all ids of `only` that are in the segment."""
    here = np.intersect1d(only, segment.ids, assume_unique=True)
    return segment.vectors(here) @ query, here


def _selector(segment: Segment, ids: Ids) -> "faiss.IDSelector":
    """Return a selector of those ids of a segment that are in `ids`: a bit for each position."""
    return _KeptBitmap(np.packbits(np.isin(segment.ids, ids, assume_unique=True), bitorder="little"))


class _KeptBitmap(faiss.IDSelectorBitmap):  # type: ignore[misc] # faiss has no types
    """A bitmap selector that owns its bits: faiss keeps only a pointer to them."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self.bits = bits
        super().__init__(bits)


def use_threads(count: int) -> None:
    """Set the number of threads of searches that this thread calls."""
    faiss.omp_set_num_threads(count)
