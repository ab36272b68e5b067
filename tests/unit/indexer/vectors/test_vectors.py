"""The vector index: against exact search by numpy, on seeded vectors."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

import whatwhere.indexer.vectors.factories
import whatwhere.indexer.vectors.index
from whatwhere.indexer.errors import CollectionCorrupt, InvalidRequest
from whatwhere.indexer.vectors.arrays import best_of, map_vectors
from whatwhere.indexer.vectors.factories import factory_for, is_lossless
from whatwhere.indexer.vectors.index import VectorIndex
from whatwhere.indexer.vectors.segment import Segment

DIMENSIONS = 16
COUNT = 200
# Neither from 0 nor without gaps, and in no order: a position must not pass for an id.
IDS = np.random.default_rng(1).permutation(np.arange(COUNT, dtype=np.int64) * 7 + 1000)


def unit_vectors(count: int, seed: int) -> NDArray[np.float32]:
    """Draw vectors of length 1."""
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS = unit_vectors(COUNT, seed=0)
QUERIES = unit_vectors(20, seed=2)
GONE = np.sort(IDS[10:60])


def exact(
    query: NDArray[np.float32], count: int, among: NDArray[np.int64] = IDS
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Search by multiplying everything out."""
    searched = np.isin(IDS, among)
    scores = VECTORS[searched] @ query
    best = np.argsort(-scores)[:count]
    return scores[best], IDS[searched][best]


def in_parts(*sizes: int, removed: NDArray[np.int64] | None = None, factory: str = "Flat") -> VectorIndex:
    """Give an index of all vectors in segments of these sizes, the first by the factory."""
    ends = np.cumsum(sizes)
    assert ends[-1] == COUNT
    parts = zip(np.split(IDS, ends[:-1]), np.split(VECTORS, ends[:-1]), strict=True)
    segments = [Segment.build(ids, vectors, "Flat" if place else factory) for place, (ids, vectors) in enumerate(parts)]
    return VectorIndex(tuple(segments)) if removed is None else VectorIndex(tuple(segments), removed)


ONE_AND_SEVERAL = pytest.mark.parametrize("sizes", [(COUNT,), (120, 60, 15, 5)], ids=["one segment", "four segments"])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Give the path of a segment of all vectors."""
    path = tmp_path / "segment"
    Segment.build(IDS, VECTORS).save(path)
    return path


# --- search -----------------------------------------------------------------------------------------------------


@ONE_AND_SEVERAL
@pytest.mark.parametrize("count", [1, 10, COUNT])
def test_search_gives_what_exact_search_gives(sizes: tuple[int, ...], count: int) -> None:
    """Ids in the order of their inner products, best first, with these as scores."""
    index = in_parts(*sizes)
    for query in QUERIES:
        scores, ids = index.search(query, count)

        expected_scores, expected_ids = exact(query, count)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


@ONE_AND_SEVERAL
def test_what_is_gone_is_never_found(sizes: tuple[int, ...]) -> None:
    """The others keep their order, and the page stays full."""
    index = in_parts(*sizes, removed=GONE)
    for query in QUERIES:
        _, ids = index.search(query, 100)

        np.testing.assert_array_equal(ids, exact(query, 100, np.setdiff1d(IDS, GONE))[1])


@ONE_AND_SEVERAL
@pytest.mark.parametrize("compared_at_most", [0, 10_000], ids=["many pass", "few pass"])
def test_a_filter_gives_what_exact_search_of_the_rest_gives(
    sizes: tuple[int, ...], compared_at_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways of searching what passes: full pages, nothing that is gone, ids that are nowhere passed over."""
    monkeypatch.setattr(whatwhere.indexer.vectors.index, "COMPARED_AT_MOST", compared_at_most)
    index = in_parts(*sizes, removed=GONE)
    only = np.union1d(IDS[:90], np.array([1, 2, 10**9]))
    for query in QUERIES:
        scores, ids = index.search(query, 12, only)

        expected_scores, expected_ids = exact(query, 12, np.setdiff1d(IDS[:90], GONE))
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


@pytest.mark.parametrize(
    "only", [np.array([], dtype=np.int64), np.array([3]), GONE[:4]], ids=["none", "absent", "gone"]
)
def test_a_filter_that_leaves_nothing_finds_nothing(only: NDArray[np.int64]) -> None:
    """Of the right types."""
    scores, ids = in_parts(150, 50, removed=GONE).search(QUERIES[0], 5, only)

    assert (scores.tolist(), ids.tolist()) == ([], [])
    assert (scores.dtype, ids.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("factory", ["SQ8", "SQfp16", "IVF4,Flat", "HNSW8", "IVF4,SQ8", "IVF4,PQ4x4fs,RFlat"])
def test_a_filter_on_an_approximate_index_gives_full_pages_of_what_passes(factory: str) -> None:
    """Compared one by one: as good as the factory keeps vectors, and never short."""
    index = in_parts(150, 50, removed=GONE, factory=factory)
    only = np.sort(IDS[:90])
    for query in QUERIES:
        scores, ids = index.search(query, 12, only)

        expected_scores, _ = exact(query, 12, np.setdiff1d(only, GONE))
        assert len(set(ids.tolist())) == 12
        assert not set(ids.tolist()) - set(only.tolist())
        np.testing.assert_allclose(scores, expected_scores, atol=0.02)


@pytest.mark.parametrize("factory", ["SQ8", "SQfp16", "IVF4,Flat", "HNSW8", "IVF4,PQ4x4fs,RFlat"])
@pytest.mark.parametrize("compared_at_most", [0, 10_000])
def test_an_approximate_index_leaves_out_what_is_gone_and_what_a_filter_stops(
    factory: str, compared_at_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each family of factories has parameters of its own for that."""
    monkeypatch.setattr(whatwhere.indexer.vectors.index, "COMPARED_AT_MOST", compared_at_most)
    index = in_parts(150, 50, removed=GONE, factory=factory)

    everything = index.search(QUERIES[0], COUNT)[1]
    filtered = index.search(QUERIES[0], COUNT, np.sort(IDS[:90]))[1]

    assert len(everything) > 20
    assert not set(everything.tolist()) & set(GONE.tolist())
    assert len(filtered) > 5
    assert set(filtered.tolist()) <= set(IDS[:90].tolist()) - set(GONE.tolist())


def test_equal_scores_stand_by_id() -> None:
    """Whichever segment they are in."""
    twice = np.repeat(VECTORS[:1], 2, axis=0)
    index = VectorIndex((Segment.build(np.array([9, 4]), twice), Segment.build(np.array([7, 2]), twice)))

    assert index.search(VECTORS[0], 4)[1].tolist() == [2, 4, 7, 9]


@pytest.mark.parametrize("only", [None, np.arange(COUNT + 40, dtype=np.int64)], ids=["all", "filtered"])
@pytest.mark.parametrize("factory", ["Flat", "IVF4,PQ4x4fs,RFlat", "HNSW8"])
def test_pages_with_equal_scores_are_parts_of_one_order(
    factory: str, only: NDArray[np.int64] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty vectors share a score, in two segments, better ones come after them: a search for less is a beginning."""
    monkeypatch.setattr(whatwhere.indexer.vectors.index, "COMPARED_AT_MOST", 0)
    same, better = np.repeat(VECTORS[:1], 15, axis=0), VECTORS[0] + 0.1 * VECTORS[1:11]
    better /= np.linalg.norm(better, axis=1, keepdims=True)
    first = np.concatenate([same, better, VECTORS[20:180]])
    segments = (
        Segment.build(np.arange(len(first), dtype=np.int64), first, factory),
        Segment.build(np.arange(COUNT, COUNT + 15, dtype=np.int64), same),
    )
    query = VECTORS[0] + 0.2 * VECTORS[1:11].sum(axis=0)
    index = VectorIndex(segments)

    whole = index.search(query / np.linalg.norm(query), 60, only)[1].tolist()
    parts = {count: index.search(query / np.linalg.norm(query), count, only)[1].tolist() for count in range(1, 60)}

    tied = [*range(15), *range(COUNT, COUNT + 15)]
    assert whole[whole.index(0) : whole.index(0) + 30] == tied
    assert whole.index(0) > 3
    assert {count: found for count, found in parts.items() if found != whole[:count]} == {}


def test_scores_are_cosines_without_noise() -> None:
    """A vector and itself have 1, not 0.9999998 or 1.0000001; a score that is none is no result."""
    noisy = np.array([1.0000001, 0.99999988, -1.0000002, 0.1234565, np.nan], dtype=np.float32)

    scores, ids = best_of([(noisy[:2], np.array([7, 3])), (noisy[2:], np.array([1, 2, 4]))], 9)

    assert scores.tolist() == [1, 1, pytest.approx(0.123456, abs=6e-7), -1]
    assert ids.tolist() == [3, 7, 2, 1]


def test_scores_are_inner_products_not_distances() -> None:
    """The opposite of a stored vector finds it last, at -1."""
    scores, ids = in_parts(COUNT).search(-VECTORS[5], COUNT)

    assert ids[-1] == IDS[5]
    assert scores[-1] == pytest.approx(-1)


def test_more_results_than_vectors_are_all_vectors() -> None:
    """Nothing is filled up with invalid ids."""
    scores, ids = in_parts(150, 50).search(QUERIES[0], COUNT + 50)

    assert len(scores) == COUNT
    assert sorted(ids) == sorted(IDS)


def test_results_have_the_documented_types() -> None:
    """Scores float32, ids int64."""
    scores, ids = in_parts(150, 50).search(QUERIES[0], 3)

    assert (scores.dtype, scores.shape) == (np.float32, (3,))
    assert (ids.dtype, ids.shape) == (np.int64, (3,))


def test_an_index_without_segments_finds_nothing() -> None:
    """A collection without images has one."""
    index = VectorIndex(())

    scores, ids = index.search(QUERIES[0], 5)

    assert (len(index), scores.tolist(), ids.tolist()) == (0, [], [])
    assert (scores.dtype, ids.dtype) == (np.float32, np.int64)


# --- contents ---------------------------------------------------------------------------------------------------


@ONE_AND_SEVERAL
def test_ids_are_those_that_can_be_found(sizes: tuple[int, ...]) -> None:
    """Sorted, less those that are gone."""
    index = in_parts(*sizes, removed=GONE)

    np.testing.assert_array_equal(index.ids, np.sort(np.setdiff1d(IDS, GONE)))
    assert index.ids.dtype == np.int64
    assert len(index) == COUNT - len(GONE)


@ONE_AND_SEVERAL
def test_a_vector_is_returned_by_its_id(sizes: tuple[int, ...]) -> None:
    """To the last bit, from whichever segment has it."""
    index = in_parts(*sizes)
    for position in (0, 17, COUNT - 1):
        vector = index.vector(int(IDS[position]))

        np.testing.assert_array_equal(vector, VECTORS[position])
        assert vector.dtype == np.float32


@pytest.mark.parametrize("identifier", [3, int(GONE[0]), 10**12], ids=["a position", "gone", "beyond"])
def test_the_vector_of_an_absent_id_is_a_key_error(identifier: int) -> None:
    """A position is not an id, and what is gone is absent."""
    with pytest.raises(KeyError, match=str(identifier)):
        in_parts(150, 50, removed=GONE).vector(identifier)


def test_a_segment_gives_vectors_in_the_order_asked_for() -> None:
    """And refuses ids that it has not."""
    segment = Segment.build(IDS, VECTORS)

    np.testing.assert_array_equal(segment.vectors(IDS[[7, 3, 5]]), VECTORS[[7, 3, 5]])
    assert segment.vectors(np.array([], dtype=np.int64)).shape == (0, DIMENSIONS)
    with pytest.raises(KeyError):
        segment.vectors(np.array([IDS[0], 3]))


def test_building_takes_every_layout_and_float_type() -> None:
    """A transposed, double-precision array is stored as its values say."""
    segment = Segment.build(IDS, np.asfortranarray(VECTORS.astype(np.float64)))  # type: ignore[arg-type] # on purpose

    np.testing.assert_allclose(segment.vectors(IDS[4:5])[0], VECTORS[4], atol=1e-7)


def test_a_segment_keeps_the_vectors_that_it_did_not_copy(tmp_path: Path) -> None:
    """Whoever gave them may let go of them: the array, and the file that it was mapped from."""
    ids = np.arange(COUNT)
    (tmp_path / "vectors").write_bytes(VECTORS.tobytes())
    with (tmp_path / "vectors").open("rb") as file:
        segments = [Segment.build(ids, VECTORS.copy()), Segment.build(ids, map_vectors(file, DIMENSIONS))]
    (tmp_path / "vectors").unlink()
    _overwritten = [np.full_like(VECTORS, np.nan) for _ in range(20)]

    for segment in segments:
        np.testing.assert_array_equal(segment.vectors(ids), VECTORS)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("Nope", "is unknown to faiss"),
        ("PQ4", "cannot be searched with a filter"),
        ("PCA8,Flat", "cannot be searched with a filter"),
        ("PQ4x4fs,RFlat", "cannot be searched with a filter"),
        ("IVF500,Flat", "cannot be trained on 200 vectors"),
    ],
)
def test_a_factory_that_cannot_be_used_is_refused(factory: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """With what would do; faiss itself prints nothing."""
    with pytest.raises(InvalidRequest, match=said) as refused:
        Segment.build(IDS, VECTORS, factory)

    assert refused.value.field == "index_factory"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "factory",
    [
        "Flat",
        "HNSW8",
        "HNSW8,Flat",
        "IVF4,Flat",
        "SQ8",
        "IVF4,SQ8",
        "HNSW8,SQ8",
        "IVF4,PQ4x4fs,RFlat",
        "IVF4,PQ4x4fs,Refine(SQ8)",
    ],
)
def test_lossless_factories_are_those_that_return_what_they_got(factory: str) -> None:
    """The name tells what the vectors show."""
    kept = Segment.build(IDS, VECTORS, factory).vectors(IDS)

    assert is_lossless(factory) == np.array_equal(kept, VECTORS)


# --- the factory for the size -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "dimensions", "expected"),
    [
        (0, 1024, "Flat"),
        (20_000, 1024, "Flat"),
        (20_001, 1024, "IVF64,PQ256x4fs,RFlat"),
        (20_001, 510, "IVF64,PQ102x4fs,RFlat"),
        (500_000, 512, "IVF64,PQ128x4fs,RFlat"),
        (500_001, 512, "IVF1024,PQ128x4fs,RFlat"),
        (1_000_000, 512, "IVF2048,PQ128x4fs,RFlat"),
        (10**9, 512, "IVF65536,PQ128x4fs,RFlat"),
        (1_000_000, 299, "Flat"),
    ],
)
def test_the_factory_follows_the_size(count: int, dimensions: int, expected: str) -> None:
    """Exact while that is fast, then one pass over codes, then over a part of them; always re-ranked, never lossy."""
    assert factory_for(count, dimensions) == expected
    assert is_lossless(expected)


@pytest.mark.parametrize("one_pass_at_most", [10**6, 0], ids=["one pass", "many lists"])
def test_what_is_compressed_finds_what_exact_search_finds(
    one_pass_at_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten in a thousand of twenty thousand may differ; scores are those of the vectors themselves."""
    monkeypatch.setattr(whatwhere.indexer.vectors.factories, "ONE_PASS_AT_MOST", one_pass_at_most)
    random = np.random.default_rng(4)
    # as real ones: most of what there is of a vector it shares with some others
    centers = random.normal(size=(400, 64))
    vectors = centers[random.integers(0, 400, 20_001)] + 0.7 * random.normal(size=(20_001, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    factory = factory_for(len(vectors), 64)
    segment = Segment.build(np.arange(len(vectors)), vectors, factory)

    found = 0
    for query in vectors[:100]:
        scores, ids = segment.search(query, 10)
        np.testing.assert_allclose(scores, vectors[ids] @ query, atol=1e-5)
        found += len(np.intersect1d(ids, np.argsort(-(vectors @ query))[:10]))

    assert factory == ("IVF64,PQ16x4fs,RFlat" if one_pass_at_most else "IVF256,PQ16x4fs,RFlat")
    assert found >= 980


# --- files ------------------------------------------------------------------------------------------------------


def mapped(path: Path) -> Segment:
    return Segment.map(path, path.stat().st_size)


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "IVF4,Flat", "HNSW8", "IVF4,PQ4x4fs,RFlat"])
def test_a_mapped_segment_equals_the_saved_one(tmp_path: Path, factory: str) -> None:
    """The same ids, vectors and results."""
    segment = Segment.build(IDS, VECTORS, factory)
    segment.save(tmp_path / "segment")

    opened = mapped(tmp_path / "segment")

    assert (len(opened), opened.dimensions) == (COUNT, DIMENSIONS)
    np.testing.assert_array_equal(opened.ids, np.sort(IDS))
    np.testing.assert_array_equal(opened.vectors(IDS), segment.vectors(IDS))
    for query in QUERIES:
        for found, expected in zip(opened.search(query, 10), segment.search(query, 10), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_the_same_vectors_give_the_same_file(tmp_path: Path) -> None:
    """In whatever order they come: a run that was killed and one that was not write the same."""
    Segment.build(IDS, VECTORS).save(tmp_path / "a")
    Segment.build(IDS[::-1], VECTORS[::-1]).save(tmp_path / "b")

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.fixture
def in_order(tmp_path: Path) -> Iterator[NDArray[np.float32]]:
    """Give all vectors by their ids, mapped from a file."""
    with (tmp_path / "vectors").open("w+b") as file:
        file.write(VECTORS[np.argsort(IDS)].tobytes())
        file.flush()
        yield map_vectors(file, DIMENSIONS)


@pytest.mark.parametrize(
    "factory", ["Flat", "SQ8", "HNSW8", "IVF4,Flat", "IVF4,PQ4x4fs,RFlat", "IVF4,PQ4x4fs,Refine(SQ8)"]
)
def test_vectors_of_a_mapped_file_give_the_same_segment(
    tmp_path: Path, in_order: NDArray[np.float32], factory: str
) -> None:
    """To the byte, whichever parts of it faiss copies."""
    Segment.build(IDS, VECTORS, factory).save(tmp_path / "of an array")
    Segment.build(np.sort(IDS), in_order, factory).save(tmp_path / "of a file")

    assert (tmp_path / "of a file").read_bytes() == (tmp_path / "of an array").read_bytes()


@pytest.mark.parametrize("factory", ["Flat", "IVF4,PQ4x4fs,RFlat"])
def test_a_file_is_what_faiss_writes_of_vectors_that_it_copied(
    tmp_path: Path, in_order: NDArray[np.float32], factory: str
) -> None:
    """To the byte: files of all versions are of one kind."""
    inner = faiss.index_factory(DIMENSIONS, factory, faiss.METRIC_INNER_PRODUCT)
    coarse = faiss.downcast_index(inner.base_index) if "," in factory else None
    for trained in [coarse.cp, coarse.pq.cp] if coarse else []:
        trained.min_points_per_centroid = 1  # only so that faiss does not warn
    inner.train(np.array(in_order))
    index = faiss.IndexIDMap(inner)
    index.add_with_ids(np.array(in_order), np.sort(IDS))
    faiss.write_index(index, str(tmp_path / "copied"))

    Segment.build(np.sort(IDS), in_order, factory).save(tmp_path / "segment")

    assert (tmp_path / "segment").read_bytes() == (tmp_path / "copied").read_bytes()


BUILD_MAPPED = """
import sys
from pathlib import Path
import numpy as np
from whatwhere.indexer.vectors.segment import Segment
from whatwhere.indexer.vectors.arrays import map_vectors
from whatwhere.indexer.vectors.index import use_threads
use_threads(1)
Segment.build(np.arange(600), np.random.default_rng(0).random((600, 256), dtype=np.float32), sys.argv[2])
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
with open(sys.argv[1], "rb") as file:
    before = peak()
    vectors = map_vectors(file, 256)
    Segment.build(np.arange(len(vectors)), vectors, sys.argv[2]).save(Path(sys.argv[1] + ".faiss"))
print(1024 * (peak() - before))
"""


@pytest.mark.parametrize(
    ("factory", "at_most"), [("Flat", 20e6), ("IVF4,PQ64x4fs,RFlat", 60e6)], ids=["exact", "compressed"]
)
def test_little_of_a_mapped_file_is_resident_while_it_becomes_a_segment(
    tmp_path: Path, factory: str, at_most: float
) -> None:
    """Of 134 MB, in a process of its own: a few blocks, the codes, and the 17 MB that are trained on."""
    with (tmp_path / "vectors").open("wb") as file:
        for seed in range(8):
            file.write(np.random.default_rng(seed).random((16_384, 256), dtype=np.float32).data)

    built = subprocess.run(
        [sys.executable, "-c", BUILD_MAPPED, str(tmp_path / "vectors"), factory],
        capture_output=True,
        check=True,
        text=True,
    )

    assert (tmp_path / "vectors.faiss").stat().st_size > 8 * 16_384 * 1024
    assert int(built.stdout) < at_most


def test_a_segment_lies_in_its_file_not_in_memory(saved: Path) -> None:
    """The system's list of this process's mappings has the file, until the segment is let go."""
    segment = mapped(saved)

    assert str(saved) in Path("/proc/self/maps").read_text()
    del segment
    assert str(saved) not in Path("/proc/self/maps").read_text()


def test_a_missing_file_is_corruption(tmp_path: Path) -> None:
    """The message names the file, not the folder above it, and the remedy."""
    with pytest.raises(CollectionCorrupt, match=r"^absent is missing .*verify --repair"):
        Segment.map(tmp_path / "absent", 100)


def test_foreign_bytes_are_corruption(tmp_path: Path) -> None:
    """A text is no index."""
    (tmp_path / "index").write_text("once upon a time " * 100)

    with pytest.raises(CollectionCorrupt):
        mapped(tmp_path / "index")


OPEN_MAPPED = """
import sys
from pathlib import Path
from whatwhere.indexer.errors import CollectionCorrupt
from whatwhere.indexer.vectors.segment import Segment
try:
    Segment.map(Path(sys.argv[1]), int(sys.argv[2]))
except CollectionCorrupt:
    print("corrupt")
"""


@pytest.mark.parametrize("length", [0, 30, 65, 500, -8, -1])
def test_a_torn_file_is_corruption(saved: Path, length: int) -> None:
    """In a process of its own, because reading beyond the end of a mapping would end this one."""
    whole = saved.read_bytes()
    saved.write_bytes(whole[:length])

    opening = subprocess.run(
        [sys.executable, "-c", OPEN_MAPPED, str(saved), str(len(whole))], capture_output=True, check=False
    )

    assert (opening.returncode, opening.stdout) == (0, b"corrupt\n")


def test_a_file_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """An OSError that names the file and leaves nothing, as of any other file."""
    segment = Segment.build(IDS, VECTORS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=rf"File too large: '{tmp_path}/\.segment\.tmp'"):
            segment.save(tmp_path / "segment")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert list(tmp_path.iterdir()) == []
