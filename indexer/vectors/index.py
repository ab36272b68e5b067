"""Segments that are searched as one."""

from dataclasses import dataclass, field
from functools import cached_property

import faiss
import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.vectors.arrays import Ids, Vectors, best_of
from whatwhere.indexer.vectors.segment import Segment
from whatwhere.indexer.vectors.store import Only

# A filter that leaves no more than this is answered by comparing with all that it leaves, whatever the factory: exact,
# never short of results, and (measured, 1024 dimensions) within 20 ms.
COMPARED_AT_MOST = 10_000


@dataclass(frozen=True)
class VectorIndex:
    """Segments, searched as one; `removed` are ids (sorted) that segments hold and that are gone."""

    segments: tuple[Segment, ...]
    removed: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @cached_property
    def ids(self) -> Ids:
        """The ids that can be found, sorted."""
        held = [segment.ids for segment in self.segments]
        found = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *held]))
        return np.setdiff1d(found, self.removed, assume_unique=True) if len(self.removed) else found

    def __len__(self) -> int:
        """Return how many vectors can be found."""
        return len(self.ids)

    def vector(self, identifier: int) -> Vectors:
        """Return the vector [D] of one id, or raise KeyError."""
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
        """What each segment lets through: all where nothing of it is gone."""
        return tuple(
            _selector(segment, np.setdiff1d(segment.ids, self.removed))
            if np.isin(self.removed, segment.ids).any()
            else None
            for segment in self.segments
        )

    @property
    def filterable(self) -> bool:
        """Whether a search may be limited by a condition: files hold vectors and nothing else."""
        return False

    def ping(self) -> None:
        """Do nothing: files are there."""

    def search(self, query: Vectors, count: int, only: Only | None = None) -> tuple[Vectors, Ids]:
        """Return the scores and ids of the `count` best of one query [D], best first; fewer when there are fewer.

        `only` (sorted ids) leaves out all others; exact up to COMPARED_AT_MOST of them. Equal scores stand by id.
        """
        if only is None:
            searched = [
                segment.search(query, count, selector)
                for segment, selector in zip(self.segments, self._selectors, strict=True)
            ]
            return best_of(searched, count)
        assert isinstance(only, np.ndarray)  # no condition, see `filterable`
        only = np.intersect1d(only, self.ids, assume_unique=True)
        if len(only) <= COMPARED_AT_MOST:
            return best_of([_compared(segment, query, only) for segment in self.segments], count)
        return best_of([segment.search(query, count, _selector(segment, only)) for segment in self.segments], count)


def _compared(segment: Segment, query: Vectors, only: Ids) -> tuple[Vectors, Ids]:
    """Compare with each of `only` that is in the segment."""
    here = np.intersect1d(only, segment.ids, assume_unique=True)
    return segment.vectors(here) @ query, here


def _selector(segment: Segment, ids: Ids) -> "faiss.IDSelector":
    """Return what lets those of these ids through that a segment holds: a bit for each position."""
    return _KeptBitmap(np.packbits(np.isin(segment.ids, ids, assume_unique=True), bitorder="little"))


class _KeptBitmap(faiss.IDSelectorBitmap):  # type: ignore[misc] # faiss has no types
    """A bitmap that lives as long as its selector: faiss only points to it."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self.bits = bits
        super().__init__(bits)


def use_threads(count: int) -> None:
    """Let searches that are called from this thread use so many."""
    faiss.omp_set_num_threads(count)
