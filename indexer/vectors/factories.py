"""Choose, train and search faiss indexes."""

import math
from typing import Any

from whatwhere.indexer.errors import InvalidRequest, VectorLibraryMissing
from whatwhere.indexer.vectors.arrays import Vectors, evenly_spaced
from whatwhere.indexer.vectors.names import EXACT

try:
    import faiss
except ImportError as error:  # pragma: no cover - needs an environment without faiss
    raise VectorLibraryMissing(
        "neither faiss-cpu nor faiss-gpu is installed: pip install 'whatwhere[cpu]' (or [gpu])"
    ) from error

EXACT_AT_MOST = 20_000  # vectors: exhaustive search takes 5 ms at 1024 dimensions
ONE_PASS_AT_MOST = 500_000  # vectors: exhaustive search of codes (4 bits for four dimensions) takes 6 ms
_LISTS_ALWAYS_PROBED = 64
_PROBED_SHARE = 8  # one in eight inverted lists is searched if there are many
_HNSW_BREADTH = 64
_RERANKED_FACTOR, _RERANKED_AT_LEAST = 10, 100  # candidates by codes are compared again by their vectors
# vectors: k-means uses no more for 64 lists; 64 MB at 1024 dimensions
_TRAINED_ON, _TRAINED_ON_PER_LIST = 16_384, 64
_FAMILIES = (faiss.IndexFlat, faiss.IndexScalarQuantizer, faiss.IndexIVF, faiss.IndexHNSW)


def factory_for(count: int, dimensions: int) -> str:
    """Return the faiss factory string for `count` vectors: exact up to EXACT_AT_MOST, then compressed and re-ranked.

    Codes of 4 bits for four to eight dimensions (`PQ...x4fs`; André et al., 2017) select candidates, which are ranked
    by their vectors: recall@10 is at least 0.99 in a twentieth of the time of an exhaustive search (table in the
    README). Above ONE_PASS_AT_MOST there are about 2 √N inverted lists, and only some are searched.
    """
    together = next((each for each in range(4, 9) if dimensions % each == 0), None)
    if count <= EXACT_AT_MOST or together is None:
        return EXACT
    lists = _LISTS_ALWAYS_PROBED if count <= ONE_PASS_AT_MOST else 2 ** round(math.log2(2 * math.sqrt(count)))
    return f"IVF{lists},PQ{dimensions // together}x4fs,RFlat"


def is_lossless(factory: str) -> bool:
    """Tell whether an index of this factory stores unchanged vectors, so that they can be copied from it."""
    return factory.endswith("Flat") or (factory.startswith("HNSW") and "," not in factory)


def trained_index(factory: str, vectors: Vectors) -> Any:
    """Return an empty faiss index, trained if necessary on vectors evenly spaced among these [N, D].

    Raises InvalidRequest if faiss does not know the factory, it does not support filtered search, or it cannot be
    trained on so few vectors.
    """
    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InvalidRequest(
            f"index factory {factory!r} is unknown to faiss: give auto, or for example Flat, SQ8, HNSW32 or "
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
            trained.min_points_per_centroid = 1  # otherwise faiss prints warnings to standard error
    if not index.is_trained:
        wanted = max(_TRAINED_ON, _TRAINED_ON_PER_LIST * getattr(coarse, "nlist", 0))
        try:
            index.train(evenly_spaced(vectors, wanted))
        except RuntimeError as error:
            raise InvalidRequest(
                f"index factory {factory!r} cannot be trained on {len(vectors):,} vectors ({_first_line(error)}): "
                "use one with fewer lists, or Flat",
                field="index_factory",
            ) from error
    return index


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rpartition("Error: ")[2]


def search_parameters(index: Any, count: int, only: "faiss.IDSelector | None") -> "faiss.SearchParameters":
    """Return the parameters of a search for `count` vectors, limited to `only`, for the family of this index."""
    if isinstance(index, faiss.IndexRefine):
        coarse = search_parameters(faiss.downcast_index(index.base_index), count, only)
        factor = max(_RERANKED_FACTOR, _RERANKED_AT_LEAST / count)
        return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=coarse)
    if isinstance(index, faiss.IndexIVF):
        probed = max(_LISTS_ALWAYS_PROBED, index.nlist // _PROBED_SHARE)
        return faiss.SearchParametersIVF(sel=only, nprobe=min(probed, index.nlist))
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=only, efSearch=_HNSW_BREADTH)
    return faiss.SearchParameters(sel=only)
