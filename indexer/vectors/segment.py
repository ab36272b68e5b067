"""An immutable file of vectors."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.errors import CollectionCorrupt
from whatwhere.indexer.storage.files import write_durably
from whatwhere.indexer.vectors.arrays import AT_ONCE, Ids, Vectors, release
from whatwhere.indexer.vectors.factories import search_parameters, trained_index
from whatwhere.indexer.vectors.names import EXACT

_REMEDY = "run `whatwhere verify --repair`, which rebuilds it from the shards"
_WRITTEN_AT_ONCE = 1 << 22  # bytes


class Segment:
    """Immutable unit vectors [N, D] (float32) with ascending ids [N] (int64). Safe to use from several threads."""

    def __init__(self, index: Any, rows: Vectors | None = None) -> None:
        self._index = index
        self._rows = rows  # the memory of vectors that the index does not copy
        self._inner = faiss.downcast_index(index.index)
        self.ids: Ids = np.asarray(faiss.vector_to_array(index.id_map), dtype=np.int64)

    @classmethod
    def build(cls, ids: Ids, vectors: Vectors, factory: str = EXACT) -> "Segment":
        """Build a segment of vectors [N, D] with ids [N], in any order, with a faiss factory string.

        Factories that store unchanged vectors (Flat, RFlat) do not copy float32 vectors that are sorted by id: do not
        change them later. So only a part of a mapped file (`map_vectors`) is resident at a time. Raises InvalidRequest
        if faiss does not know the factory, it does not support filtered search, or it needs more vectors for training.
        """
        order = np.argsort(ids)
        ids = np.ascontiguousarray(ids[order], dtype=np.int64)
        if (order[1:] < order[:-1]).any():
            vectors = vectors[order]
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        inner = trained_index(factory, rows)
        index = faiss.IndexIDMap(inner)
        _fill(inner, rows)
        faiss.copy_array_to_vector(ids, index.id_map)
        index.ntotal = len(rows)
        if isinstance(inner, faiss.IndexIVF):
            inner.make_direct_map()  # for access to a vector by its position
        return cls(index, rows)

    @classmethod
    def map(cls, path: Path, byte_count: int) -> "Segment":
        """Map a file of known length into memory. Raises CollectionCorrupt if it is missing or truncated.

        The length is verified first: an access beyond the end of a truncated mapped file ends the process.
        """
        if not path.is_file() or path.stat().st_size != byte_count:
            raise CollectionCorrupt(f"{path.name} is missing or not {byte_count:,} bytes long: {_REMEDY}")
        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
        except RuntimeError as error:
            raise CollectionCorrupt(f"{path.name} cannot be read as a vector index: {_REMEDY}") from error

    def save(self, path: Path) -> None:
        """Write the segment atomically."""
        write_durably(path, self._write)

    def _write(self, path: Path) -> None:
        try:
            with path.open("wb") as file:

                def write(part: bytes) -> None:
                    file.write(part)
                    if self._rows is not None and len(part) == _WRITTEN_AT_ONCE:
                        release(self._rows)

                faiss.write_index(self._index, faiss.PyCallbackIOWriter(write, _WRITTEN_AT_ONCE))
        except OSError as error:  # a failed write does not name its file
            raise OSError(error.errno, error.strerror, str(path)) from error

    @property
    def dimensions(self) -> int:
        """The length D of a vector."""
        return int(self._index.d)

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self.ids)

    def positions(self, ids: Ids) -> NDArray[np.int64]:
        """Return the positions [N] of these ids [N]. Raises KeyError if one is missing."""
        positions = np.searchsorted(self.ids, ids)
        if len(self.ids) == 0 or (self.ids[np.minimum(positions, len(self.ids) - 1)] != ids).any():
            raise KeyError(ids)
        return positions

    def vectors(self, ids: Ids) -> Vectors:
        """Return the vectors [N, D] of these ids, as the factory stores them. Raises KeyError if one is missing."""
        if len(ids) == 0:
            return np.empty((0, self.dimensions), dtype=np.float32)
        return np.asarray(self._inner.reconstruct_batch(self.positions(ids)), dtype=np.float32)

    def search(self, query: Vectors, count: int, only: "faiss.IDSelector | None" = None) -> tuple[Vectors, Ids]:
        """Return the scores and ids of at most `count` vectors for a query [D], best first.

        `only` selects positions, because faiss translates ids for plain indexes but not for re-ranked ones.
        """
        if len(self) == 0:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        count = min(count, len(self))
        parameters = search_parameters(self._inner, count, only)
        scores, positions = self._inner.search(query[np.newaxis], count, params=parameters)
        found = positions[0] >= 0  # faiss pads results with -1
        return scores[0][found], self.ids[positions[0][found]]


def _fill(index: Any, rows: Vectors) -> None:
    """Add vectors to an empty, trained index; a flat index only refers to them instead of copying."""
    if isinstance(index, faiss.IndexRefine):
        for part in (index.base_index, index.refine_index):
            _fill(faiss.downcast_index(part), rows)
        index.ntotal = len(rows)
    elif isinstance(index, faiss.IndexFlat):
        no_owner = index.codes.owner  # of an empty index
        index.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(rows), rows.nbytes, no_owner)
        index.ntotal = len(rows)
    else:
        for start in range(0, len(rows), AT_ONCE):
            index.add(rows[start : start + AT_ONCE])
            release(rows)
