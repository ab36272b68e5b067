"""Ids, vectors and scores as arrays; vectors in memory or mapped from a file."""

import mmap
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]
Vectors: TypeAlias = NDArray[np.float32]
AT_ONCE = 4096  # vectors per block
SCORE_DECIMALS = 6
# A score passes a minimum that is higher by this: the precision of a dot product of float32 vectors of length 1.
SCORE_TOLERANCE = 10.0**-SCORE_DECIMALS
MOST_TIED = 4096  # results: ties with the last one are looked for up to this number


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


def cosines(products: Vectors) -> Vectors:
    """Return dot products of vectors of length 1 as scores: within [-1, 1], with SCORE_DECIMALS decimals.

    Float32 makes them 0.9999998 or 1.0000001 for a vector with itself, and differ between identical vectors.
    """
    return np.clip(products, -1, 1).round(SCORE_DECIMALS).astype(np.float32)


def best_of(found: Sequence[tuple[Vectors, Ids]], count: int) -> tuple[Vectors, Ids]:
    """Return the scores and ids of the `count` best results of several searches, best first, then by id.

    Results without a score (NaN) are left out.
    """
    scores = cosines(np.concatenate([np.empty(0, dtype=np.float32), *(scores for scores, _ in found)]))
    ids = np.concatenate([np.empty(0, dtype=np.int64), *(ids for _, ids in found)])
    order = np.lexsort((ids, -scores))
    order = order[~np.isnan(scores[order])][:count]
    return scores[order], ids[order]


def best_with_ties(
    search: Callable[[int], Sequence[tuple[Vectors, Ids]]], count: int, most: int = MOST_TIED
) -> tuple[Vectors, Ids]:
    """Return `best_of` of what `search` finds, with the lowest ids of those that have the last score.

    A search for N results returns the N best of each part, but any of those with the N-th score. So it asks for more,
    at most max(`count`, `most`), until all of that score are found: the pages of one answer are parts of one order.
    """
    asked = count + 1
    while True:
        asked = min(asked, max(count, most))
        found = search(asked)
        scores, ids = best_of(found, count)
        last = scores[-1] if len(scores) else np.inf
        if asked >= max(count, most) or all(_ends_below(part, asked, last) for part, _ in found):
            return scores, ids
        asked *= 4


def _ends_below(products: Vectors, asked: int, last: float) -> bool:
    """Tell whether a part has no other result with this score or a better one."""
    return len(products) < asked or not bool((cosines(products) >= last).all())
