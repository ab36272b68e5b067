"""Vector indexes of unit vectors with ids, searched by inner product; the only home of faiss, and of pymilvus.

In files, an index is a few segments that never change, and the ids that have gone since they were written. So adding
to a large index writes a small file, and generations share what they have in common.
"""

from indexer.vectors.arrays import Ids, Vectors, map_vectors
from indexer.vectors.factories import AUTO, EXACT, EXACT_AT_MOST, ONE_PASS_AT_MOST, factory_for, is_lossless
from indexer.vectors.index import COMPARED_AT_MOST, VectorIndex, use_threads
from indexer.vectors.segment import Segment
from indexer.vectors.store import (
    Change,
    Generation,
    Held,
    Index,
    Only,
    Origin,
    RemoteEntry,
    SegmentEntry,
    VectorStore,
)

__all__ = [
    "AUTO",
    "COMPARED_AT_MOST",
    "EXACT",
    "EXACT_AT_MOST",
    "ONE_PASS_AT_MOST",
    "Change",
    "Generation",
    "Held",
    "Ids",
    "Index",
    "Only",
    "Origin",
    "RemoteEntry",
    "Segment",
    "SegmentEntry",
    "VectorIndex",
    "VectorStore",
    "Vectors",
    "factory_for",
    "is_lossless",
    "map_vectors",
    "use_threads",
]
