"""A vector index of unit vectors with ids, searched by inner product; the only home of faiss.

Exact search until a size is measured at which something else pays.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.errors import CollectionCorrupt, VectorLibraryMissing
from indexer.files import write_durably

try:
    import faiss
except ImportError as error:  # pragma: no cover - needs an environment without faiss
    raise VectorLibraryMissing(
        "neither faiss-cpu nor faiss-gpu is installed: pip install 'whatwhere[cpu]' (or [gpu])"
    ) from error

FACTORY = "Flat"


class VectorIndex:
    """Vectors float32 [N, D] of length 1 under int64 ids. Searching is safe from several threads."""

    def __init__(self, index: Any, *, writable: bool = True) -> None:
        self._index = index
        self._writable = writable

    @classmethod
    def create(cls, dimensions: int) -> "VectorIndex":
        """Return an empty index of vectors of length `dimensions`."""
        return cls(faiss.IndexIDMap2(faiss.index_factory(dimensions, FACTORY, faiss.METRIC_INNER_PRODUCT)))

    @classmethod
    def open(cls, path: Path) -> "VectorIndex":
        """Read an index into memory; CollectionCorrupt when it is absent or torn."""
        return cls(_read(path, 0))

    @classmethod
    def map(cls, path: Path, byte_count: int) -> "VectorIndex":
        """Map an index of known length into memory, to be searched and not changed; CollectionCorrupt as for `open`.

        The length is compared first: past the end of a torn file a mapping ends the process.
        """
        if not path.is_file() or path.stat().st_size != byte_count:
            raise CollectionCorrupt(
                f"{path.name} is missing or not {byte_count:,} bytes long: restore it from a backup"
            )
        return cls(_read(path, faiss.IO_FLAG_MMAP_IFC), writable=False)

    def save(self, path: Path) -> None:
        """Write the index, never half."""
        write_durably(path, lambda temporary: faiss.write_index(self._index, str(temporary)))

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return int(self._index.d)

    @property
    def ids(self) -> NDArray[np.int64]:
        """All ids, in the order of the vectors."""
        return np.asarray(faiss.vector_to_array(self._index.id_map), dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of vectors."""
        return int(self._index.ntotal)

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add vectors [N, D] under new ids [N]."""
        assert self._writable, "a mapped index cannot be changed"
        self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Remove these ids; absent ones are passed over."""
        assert self._writable, "a mapped index cannot be changed"
        self._index.remove_ids(ids)

    def vector(self, identifier: int) -> NDArray[np.float32]:
        """Return the vector [D] of one id, or raise KeyError."""
        try:
            return np.asarray(self._index.reconstruct(identifier), dtype=np.float32)
        except RuntimeError as error:
            raise KeyError(identifier) from error

    def search(self, query: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the scores and ids of the `count` best of one query [D], best first; fewer when there are fewer."""
        if len(self) == 0:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        scores, ids = self._index.search(query[np.newaxis], min(count, len(self)))
        return scores[0], ids[0]


def _read(path: Path, flags: int) -> Any:
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise CollectionCorrupt(f"{path.name} cannot be read as a vector index: {error}") from error
