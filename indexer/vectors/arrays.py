"""Ids and vectors as arrays, in memory or mapped from a file."""

import mmap
from collections.abc import Sequence
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]
Vectors: TypeAlias = NDArray[np.float32]
AT_ONCE = 4096  # vectors per block


def map_vectors(file: BinaryIO, dimensions: int) -> Vectors:
    """Map a file of float32 values read-only, as vectors [N, D]."""
    return np.memmap(file, np.float32, "r").reshape(-1, dimensions)


def release(vectors: Vectors) -> None:
    """Release the resident pages of vectors that are mapped from a file; do nothing for others."""
    base: Any = vectors
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and not vectors.flags.writeable:  # a private mapping would lose its changes
        base.madvise(mmap.MADV_DONTNEED)


def evenly_spaced(vectors: Vectors, count: int) -> Vectors:
    """Return `count` vectors [count, D], evenly spaced among these [N, D], or a copy of all if N is smaller."""
    count = min(count, len(vectors))
    places = np.arange(count) * len(vectors) // max(1, count)
    chosen = np.empty((count, vectors.shape[1]), dtype=np.float32)
    # In a mapped file, whole ranges become resident, not only the chosen vectors.
    step = max(1, AT_ONCE * count // max(1, len(vectors)))
    for start in range(0, count, step):
        chosen[start : start + step] = vectors[places[start : start + step]]
        release(vectors)
    return chosen


def best_of(found: Sequence[tuple[Vectors, Ids]], count: int) -> tuple[Vectors, Ids]:
    """Return the scores and ids of the `count` best results of several searches, best first, then by id."""
    scores = np.concatenate([np.empty(0, dtype=np.float32), *(scores for scores, _ in found)])
    ids = np.concatenate([np.empty(0, dtype=np.int64), *(ids for _, ids in found)])
    order = np.lexsort((ids, -scores))[:count]
    return scores[order], ids[order]
