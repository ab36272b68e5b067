"""A file of vectors that never changes."""

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

_REMEDY = "run `whatwhere verify --repair`, which makes it anew from the shards"
_WRITTEN_AT_ONCE = 1 << 22  # bytes


class Segment:
    """Vectors float32 [N, D] of length 1 under ascending int64 ids, never changed. Safe to use from several threads."""

    def __init__(self, index: Any, rows: Vectors | None = None) -> None:
        self._index = index
        self._rows = rows  # where the index looks for vectors that it keeps as they are
        self._inner = faiss.downcast_index(index.index)
        self.ids: Ids = np.asarray(faiss.vector_to_array(index.id_map), dtype=np.int64)

    @classmethod
    def build(cls, ids: Ids, vectors: Vectors, factory: str = EXACT) -> "Segment":
        """Make a segment of vectors [N, D] under ids [N], in any order, by a faiss factory string.

        What a factory keeps as it is (Flat, RFlat) is not copied from vectors float32 that lie by id: leave them as
        they are. So of vectors in a mapped file (`map_vectors`) only some are resident at a time. InvalidRequest for a
        factory that is none, cannot be searched with a filter, or wants more vectors to train on.
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
            inner.make_direct_map()  # without it a vector cannot be had by its position
        return cls(index, rows)

    @classmethod
    def map(cls, path: Path, byte_count: int) -> "Segment":
        """Map a file of known length into memory; CollectionCorrupt when it is absent or torn.

        The length is compared first: past the end of a torn file a mapping ends the process.
        """
        if not path.is_file() or path.stat().st_size != byte_count:
            raise CollectionCorrupt(f"{path.name} is missing or not {byte_count:,} bytes long: {_REMEDY}")
        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
        except RuntimeError as error:
            raise CollectionCorrupt(f"{path.name} cannot be read as a vector index: {_REMEDY}") from error

    def save(self, path: Path) -> None:
        """Write the segment, never half."""
        write_durably(path, self._write)

    def _write(self, path: Path) -> None:
        try:
            with path.open("wb") as file:

                def write(part: bytes) -> None:
                    file.write(part)
                    if self._rows is not None and len(part) == _WRITTEN_AT_ONCE:
                        release(self._rows)

                faiss.write_index(self._index, faiss.PyCallbackIOWriter(write, _WRITTEN_AT_ONCE))
        except OSError as error:  # of a write, which names no file
            raise OSError(error.errno, error.strerror, str(path)) from error

    @property
    def dimensions(self) -> int:
        """The length D of a vector."""
        return int(self._index.d)

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self.ids)

    def positions(self, ids: Ids) -> NDArray[np.int64]:
        """Return where these ids stand; KeyError for one that does not."""
        positions = np.searchsorted(self.ids, ids)
        if len(self.ids) == 0 or (self.ids[np.minimum(positions, len(self.ids) - 1)] != ids).any():
            raise KeyError(ids)
        return positions

    def vectors(self, ids: Ids) -> Vectors:
        """Return the vectors [N, D] of these ids, as the factory keeps them; KeyError for one that is not there."""
        if len(ids) == 0:
            return np.empty((0, self.dimensions), dtype=np.float32)
        return np.asarray(self._inner.reconstruct_batch(self.positions(ids)), dtype=np.float32)

    def search(self, query: Vectors, count: int, only: "faiss.IDSelector | None" = None) -> tuple[Vectors, Ids]:
        """Return the scores and ids of at most `count` of one query [D], best first.

        `only` lets positions through: faiss would translate ids for a plain index, not for one that is re-ranked.
        """
        if len(self) == 0:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        count = min(count, len(self))
        parameters = search_parameters(self._inner, count, only)
        scores, positions = self._inner.search(query[np.newaxis], count, params=parameters)
        found = positions[0] >= 0  # faiss fills up with -1
        return scores[0][found], self.ids[positions[0][found]]


def _fill(index: Any, rows: Vectors) -> None:
    """Add vectors to an empty, trained index; where it keeps them as they are, it is only told where they lie."""
    if isinstance(index, faiss.IndexRefine):
        for part in (index.base_index, index.refine_index):
            _fill(faiss.downcast_index(part), rows)
        index.ntotal = len(rows)
    elif isinstance(index, faiss.IndexFlat):
        nobody = index.codes.owner  # of an empty index
        index.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(rows), rows.nbytes, nobody)
        index.ntotal = len(rows)
    else:
        for start in range(0, len(rows), AT_ONCE):
            index.add(rows[start : start + AT_ONCE])
            release(rows)
