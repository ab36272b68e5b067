"""A vector index of unit vectors with ids, searched by inner product; the only home of faiss.

An index is a few segments, files that never change, and the ids that have gone since they were written. So adding to a
large index writes a small file, and generations share what they have in common.
"""

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from indexer.errors import CollectionCorrupt, InvalidRequest, VectorLibraryMissing
from indexer.files import write_durably

try:
    import faiss
except ImportError as error:  # pragma: no cover - needs an environment without faiss
    raise VectorLibraryMissing(
        "neither faiss-cpu nor faiss-gpu is installed: pip install 'whatwhere[cpu]' (or [gpu])"
    ) from error

AUTO = "auto"  # in the place of a factory: the one for the size, see `factory_for`
EXACT = "Flat"
EXACT_AT_MOST = 20_000  # vectors; compared one by one, in 5 ms at 1024 dimensions
ONE_PASS_AT_MOST = 500_000  # vectors; all of them compared in 4 bits for four dimensions, in 6 ms
# A filter that leaves no more than this is answered by comparing with all that it leaves, whatever the factory: exact,
# never short of results, and (measured, 1024 dimensions) within 20 ms.
COMPARED_AT_MOST = 10_000
_LISTS_ALWAYS_PROBED = 64
_PROBED_SHARE = 8  # of an inverted file's lists one in eight is searched, where it has many
_HNSW_BREADTH = 64
_RERANKED_FACTOR, _RERANKED_AT_LEAST = 10, 100  # what is found in 4 bits is compared again as it is
# vectors: as many as k-means takes for 64 lists, however many it is given; 64 MB at 1024 dimensions
_TRAINED_ON, _TRAINED_ON_PER_LIST = 16_384, 64

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]


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
        inner = _trained(factory, rows)
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
                        _release(self._rows)

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
        parameters = _parameters(self._inner, count, only)
        scores, positions = self._inner.search(query[np.newaxis], count, params=parameters)
        found = positions[0] >= 0  # faiss fills up with -1
        return scores[0][found], self.ids[positions[0][found]]


_REMEDY = "run `whatwhere verify --repair`, which makes it anew from the shards"
_FAMILIES = (faiss.IndexFlat, faiss.IndexScalarQuantizer, faiss.IndexIVF, faiss.IndexHNSW)
_AT_ONCE = 4096  # vectors
_WRITTEN_AT_ONCE = 1 << 22  # bytes


def map_vectors(file: BinaryIO, dimensions: int) -> Vectors:
    """Map a file of float32 values as vectors [N, D], for reading."""
    return np.memmap(file, np.float32, "r").reshape(-1, dimensions)


def _release(vectors: Vectors) -> None:
    """Let pages of a file that these vectors are mapped from count as resident no more; nothing for any others."""
    base: Any = vectors
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and not vectors.flags.writeable:  # a private copy would lose what was written
        base.madvise(mmap.MADV_DONTNEED)


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
        for start in range(0, len(rows), _AT_ONCE):
            index.add(rows[start : start + _AT_ONCE])
            _release(rows)


def _parameters(index: Any, count: int, only: "faiss.IDSelector | None") -> "faiss.SearchParameters":
    """Return how one family of indexes is searched for so many, and only for some."""
    if isinstance(index, faiss.IndexRefine):
        coarse = _parameters(faiss.downcast_index(index.base_index), count, only)
        factor = max(_RERANKED_FACTOR, _RERANKED_AT_LEAST / count)
        return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=coarse)
    if isinstance(index, faiss.IndexIVF):
        probed = max(_LISTS_ALWAYS_PROBED, index.nlist // _PROBED_SHARE)
        return faiss.SearchParametersIVF(sel=only, nprobe=min(probed, index.nlist))
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=only, efSearch=_HNSW_BREADTH)
    return faiss.SearchParameters(sel=only)


def factory_for(count: int, dimensions: int) -> str:
    """Return the faiss factory string for so many vectors: exact up to EXACT_AT_MOST, then compressed and re-ranked.

    Codes of 4 bits for four dimensions or a few more (`PQ...x4fs`; André et al., 2017) choose candidates, the vectors
    themselves rank them: recall@10 0.99 and more, a twentieth of the time of comparing all (README has the table).
    Above ONE_PASS_AT_MOST they lie in about 2 √N inverted lists, of which some are searched.
    """
    together = next((each for each in range(4, 9) if dimensions % each == 0), None)
    if count <= EXACT_AT_MOST or together is None:
        return EXACT
    lists = _LISTS_ALWAYS_PROBED if count <= ONE_PASS_AT_MOST else 2 ** round(math.log2(2 * math.sqrt(count)))
    return f"IVF{lists},PQ{dimensions // together}x4fs,RFlat"


def _trained(factory: str, vectors: Vectors) -> Any:
    """Return an empty faiss index, trained where it needs that, on vectors evenly spaced among these."""
    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InvalidRequest(
            f"index factory {factory!r} is none that faiss knows: give auto, or for instance Flat, SQ8, HNSW32 or "
            "IVF256,Flat",
            field="index_factory",
        ) from error
    coarse = faiss.downcast_index(index.base_index) if isinstance(index, faiss.IndexRefine) else index
    if not isinstance(coarse, _FAMILIES):
        raise InvalidRequest(
            f"index factory {factory!r} cannot be searched with a filter: give auto, or one of Flat, SQ..., HNSW..., "
            "IVF..., IVF...,PQ...x4fs,RFlat",
            field="index_factory",
        )
    for trained in (getattr(coarse, "cp", None), getattr(getattr(coarse, "pq", None), "cp", None)):
        if trained is not None:
            trained.min_points_per_centroid = 1  # or faiss writes warnings of its own on standard error
    if not index.is_trained:
        wanted = max(_TRAINED_ON, _TRAINED_ON_PER_LIST * getattr(coarse, "nlist", 0))
        try:
            index.train(_evenly_spaced(vectors, wanted))
        except RuntimeError as error:
            raise InvalidRequest(
                f"index factory {factory!r} cannot be trained on {len(vectors):,} vectors ({_first_line(error)}): "
                "take one with fewer lists, or Flat",
                field="index_factory",
            ) from error
    return index


def _evenly_spaced(vectors: Vectors, count: int) -> Vectors:
    """Return so many of these vectors, or all."""
    count = min(count, len(vectors))
    places = np.arange(count) * len(vectors) // max(1, count)
    chosen = np.empty((count, vectors.shape[1]), dtype=np.float32)
    # Of a mapped file, whole stretches become resident, not only what is chosen.
    step = max(1, _AT_ONCE * count // max(1, len(vectors)))
    for start in range(0, count, step):
        chosen[start : start + step] = vectors[places[start : start + step]]
        _release(vectors)
    return chosen


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rpartition("Error: ")[2]


def is_lossless(factory: str) -> bool:
    """Tell whether a factory string keeps vectors as they are, so that they can be taken over from it."""
    return factory.endswith("Flat") or (factory.startswith("HNSW") and "," not in factory)


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

    def search(self, query: Vectors, count: int, only: Ids | None = None) -> tuple[Vectors, Ids]:
        """Return the scores and ids of the `count` best of one query [D], best first; fewer when there are fewer.

        `only` (sorted ids) leaves out all others; exact up to COMPARED_AT_MOST of them. Equal scores stand by id.
        """
        if only is None:
            searched = [
                segment.search(query, count, selector)
                for segment, selector in zip(self.segments, self._selectors, strict=True)
            ]
            return _best(searched, count)
        only = np.intersect1d(only, self.ids, assume_unique=True)
        if len(only) <= COMPARED_AT_MOST:
            return _best([_compared(segment, query, only) for segment in self.segments], count)
        return _best([segment.search(query, count, _selector(segment, only)) for segment in self.segments], count)


def _compared(segment: Segment, query: Vectors, only: Ids) -> tuple[Vectors, Ids]:
    """Compare with each of `only` that is in the segment."""
    here = np.intersect1d(only, segment.ids, assume_unique=True)
    return segment.vectors(here) @ query, here


def _best(found: Sequence[tuple[Vectors, Ids]], count: int) -> tuple[Vectors, Ids]:
    scores = np.concatenate([np.empty(0, dtype=np.float32), *(scores for scores, _ in found)])
    ids = np.concatenate([np.empty(0, dtype=np.int64), *(ids for _, ids in found)])
    order = np.lexsort((ids, -scores))[:count]
    return scores[order], ids[order]


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
