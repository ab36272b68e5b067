"""The vector index: against exact search by numpy, on seeded vectors."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.errors import CollectionCorrupt
from indexer.vectors import VectorIndex

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


def exact(query: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Search by multiplying everything out."""
    scores = VECTORS @ query
    best = np.argsort(-scores)[:count]
    return scores[best], IDS[best]


@pytest.fixture
def index() -> VectorIndex:
    """Give an index of all vectors."""
    filled = VectorIndex.create(DIMENSIONS)
    filled.add(IDS, VECTORS)
    return filled


@pytest.fixture
def saved(index: VectorIndex, tmp_path: Path) -> Path:
    """Give the path of that index."""
    index.save(tmp_path / "index")
    return tmp_path / "index"


# --- search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10, COUNT])
def test_search_gives_what_exact_search_gives(index: VectorIndex, count: int) -> None:
    """Ids in the order of their inner products, best first, with these as scores."""
    for query in QUERIES:
        scores, ids = index.search(query, count)

        expected_scores, expected_ids = exact(query, count)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_a_stored_vector_finds_itself_first(index: VectorIndex) -> None:
    """At a score of 1."""
    scores, ids = index.search(VECTORS[5], 1)

    assert ids.tolist() == [IDS[5]]
    assert scores[0] == pytest.approx(1)


def test_scores_are_inner_products_not_distances(index: VectorIndex) -> None:
    """The opposite of a stored vector finds it last, at -1."""
    scores, ids = index.search(-VECTORS[5], COUNT)

    assert ids[-1] == IDS[5]
    assert scores[-1] == pytest.approx(-1)


def test_more_results_than_vectors_are_all_vectors(index: VectorIndex) -> None:
    """Nothing is filled up with invalid ids."""
    scores, ids = index.search(QUERIES[0], COUNT + 50)

    assert len(scores) == COUNT
    assert sorted(ids) == sorted(IDS)


def test_results_have_the_documented_types(index: VectorIndex) -> None:
    """Scores float32, ids int64."""
    scores, ids = index.search(QUERIES[0], 3)

    assert (scores.dtype, scores.shape) == (np.float32, (3,))
    assert (ids.dtype, ids.shape) == (np.int64, (3,))


def test_an_empty_index_finds_nothing() -> None:
    """No results, of the right types."""
    scores, ids = VectorIndex.create(DIMENSIONS).search(QUERIES[0], 5)

    assert (scores.tolist(), ids.tolist()) == ([], [])
    assert (scores.dtype, ids.dtype) == (np.float32, np.int64)


# --- contents ---------------------------------------------------------------------------------------------------


def test_a_new_index_is_empty() -> None:
    """It has a dimension and nothing else."""
    index = VectorIndex.create(DIMENSIONS)

    assert (len(index), index.dimensions, index.ids.tolist()) == (0, DIMENSIONS, [])


def test_ids_are_in_the_order_of_the_vectors(index: VectorIndex) -> None:
    """As they were added."""
    np.testing.assert_array_equal(index.ids, IDS)
    assert index.ids.dtype == np.int64
    assert len(index) == COUNT


def test_a_vector_is_returned_by_its_id(index: VectorIndex) -> None:
    """To the last bit."""
    for position in (0, 17, COUNT - 1):
        vector = index.vector(int(IDS[position]))

        np.testing.assert_array_equal(vector, VECTORS[position])
        assert vector.dtype == np.float32


def test_the_vector_of_an_absent_id_is_a_key_error(index: VectorIndex) -> None:
    """A position is not an id."""
    with pytest.raises(KeyError, match="3"):
        index.vector(3)


def test_added_vectors_are_found_beside_the_old_ones(index: VectorIndex) -> None:
    """Adding goes on where it stopped."""
    new = unit_vectors(3, seed=9)

    index.add(np.array([5, 3, 4]), new)

    assert len(index) == COUNT + 3
    assert index.search(new[1], 1)[1].tolist() == [3]
    assert index.search(VECTORS[0], 1)[1].tolist() == [IDS[0]]


def test_adding_takes_every_layout_and_float_type(index: VectorIndex) -> None:
    """A transposed, double-precision array is stored as its values say."""
    new = np.asfortranarray(unit_vectors(3, seed=9).astype(np.float64))

    index.add(np.array([5, 3, 4]), new)

    np.testing.assert_allclose(index.vector(4), new[2], atol=1e-7)


def test_removed_ids_are_gone_and_the_others_stay(index: VectorIndex) -> None:
    """Search, ids and vectors agree about it."""
    index.remove(IDS[10:20])

    kept = np.concatenate([IDS[:10], IDS[20:]])
    assert len(index) == COUNT - 10
    assert sorted(index.ids) == sorted(kept)
    assert not set(index.search(VECTORS[10], COUNT)[1]) & set(IDS[10:20])
    with pytest.raises(KeyError):
        index.vector(int(IDS[10]))
    np.testing.assert_array_equal(index.vector(int(IDS[20])), VECTORS[20])


def test_removing_an_absent_id_changes_nothing(index: VectorIndex) -> None:
    """It is passed over, beside one that is there."""
    index.remove(np.array([1, 2, IDS[0]]))

    assert len(index) == COUNT - 1


def test_a_removed_id_can_be_added_again(index: VectorIndex) -> None:
    """With another vector."""
    new = unit_vectors(1, seed=9)
    index.remove(IDS[:1])

    index.add(IDS[:1], new)

    np.testing.assert_array_equal(index.vector(int(IDS[0])), new[0])


# --- files ------------------------------------------------------------------------------------------------------


def opened_from(path: Path, memory_map: bool) -> VectorIndex:
    return VectorIndex.map(path, path.stat().st_size) if memory_map else VectorIndex.open(path)


@pytest.mark.parametrize("memory_map", [False, True], ids=["read", "mapped"])
def test_an_opened_index_equals_the_saved_one(index: VectorIndex, saved: Path, memory_map: bool) -> None:
    """Memory-mapped or not: the same ids, vectors and results."""
    opened = opened_from(saved, memory_map)

    assert (len(opened), opened.dimensions) == (COUNT, DIMENSIONS)
    np.testing.assert_array_equal(opened.ids, IDS)
    np.testing.assert_array_equal(opened.vector(int(IDS[3])), VECTORS[3])
    for query in QUERIES:
        for found, expected in zip(opened.search(query, 10), index.search(query, 10), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("memory_map", [False, True], ids=["read", "mapped"])
def test_an_index_is_mapped_only_on_request(saved: Path, memory_map: bool) -> None:
    """The system's list of this process's mappings has the file or not."""
    opened = opened_from(saved, memory_map)

    assert (str(saved) in Path("/proc/self/maps").read_text()) == memory_map
    assert len(opened) == COUNT


def test_a_mapped_index_has_the_error_for_absent_ids(saved: Path) -> None:
    """It knows its ids as one in memory does."""
    with pytest.raises(KeyError):
        opened_from(saved, memory_map=True).vector(3)


def test_a_read_index_can_be_changed_and_saved_over_itself(saved: Path) -> None:
    """That is how a generation follows another."""
    index = VectorIndex.open(saved)
    index.remove(IDS[:50])
    index.add(np.array([1]), unit_vectors(1, seed=9))

    index.save(saved)

    assert len(VectorIndex.open(saved)) == COUNT - 49
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("memory_map", [False, True], ids=["read", "mapped"])
def test_an_empty_index_survives_its_file(tmp_path: Path, memory_map: bool) -> None:
    """A collection without images has one."""
    VectorIndex.create(DIMENSIONS).save(tmp_path / "index")

    opened = opened_from(tmp_path / "index", memory_map)

    assert (len(opened), opened.dimensions) == (0, DIMENSIONS)
    assert opened.search(QUERIES[0], 5)[1].tolist() == []


@pytest.mark.parametrize("memory_map", [False, True], ids=["read", "mapped"])
def test_a_missing_file_is_corruption(tmp_path: Path, memory_map: bool) -> None:
    """The message names the file, not the folder above it."""
    with pytest.raises(CollectionCorrupt, match=r"^absent (cannot be read as a vector index|is missing)"):
        VectorIndex.map(tmp_path / "absent", 100) if memory_map else VectorIndex.open(tmp_path / "absent")


@pytest.mark.parametrize("memory_map", [False, True], ids=["read", "mapped"])
def test_foreign_bytes_are_corruption(tmp_path: Path, memory_map: bool) -> None:
    """A text is no index."""
    (tmp_path / "index").write_text("once upon a time " * 100)

    with pytest.raises(CollectionCorrupt):
        opened_from(tmp_path / "index", memory_map)


@pytest.mark.parametrize("length", [0, 3, 4, 20, 30, 40, 65, 500, 5000, -200, -8, -1])
def test_a_torn_file_is_corruption(saved: Path, length: int) -> None:
    """Wherever it ends early; negative lengths count from the end."""
    saved.write_bytes(saved.read_bytes()[:length])

    with pytest.raises(CollectionCorrupt):
        VectorIndex.open(saved)


OPEN_MAPPED = """
import sys
from pathlib import Path
from indexer.errors import CollectionCorrupt
from indexer.vectors import VectorIndex
try:
    VectorIndex.map(Path(sys.argv[1]), int(sys.argv[2]))
except CollectionCorrupt:
    print("corrupt")
"""


@pytest.mark.parametrize("length", [30, 65, 500, -8, -1])
def test_a_torn_file_is_corruption_when_mapped_too(saved: Path, length: int) -> None:
    """In a process of its own, because reading beyond the end of a mapping would end this one."""
    whole = saved.read_bytes()
    saved.write_bytes(whole[:length])

    opening = subprocess.run(
        [sys.executable, "-c", OPEN_MAPPED, str(saved), str(len(whole))], capture_output=True, check=False
    )

    assert (opening.returncode, opening.stdout) == (0, b"corrupt\n")
