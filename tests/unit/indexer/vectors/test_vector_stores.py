"""What a store of vectors must do, on each that there is: files, and Milvus by the server of Milvus Lite."""

import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.milvus import MilvusLite
from tests.ports import free_port
from tests.waiting import wait_until
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.segments import SegmentStore
from whatwhere.indexer.errors import CollectionCorrupt, InvalidRequest, VectorLibraryMissing, VectorStoreUnavailable
from whatwhere.indexer.vectors.address import MilvusAddress
from whatwhere.indexer.vectors.conditions import Facts, Has, holds, opposite
from whatwhere.indexer.vectors.milvus import MOST_RESULTS, MilvusIndex, MilvusServer, MilvusStore
from whatwhere.indexer.vectors.store import Delta, Entry, Generation, Index, RemoteEntry, VectorSource, VectorStore

pytestmark = pytest.mark.takes(60)

DIMENSIONS = 16
RED, GREEN = "a" * 32, "b" * 32
Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]


class Killed(BaseException):
    """Stands for the end of a process."""


def vectors_of(ids: Iterable[int]) -> Vectors:
    """Return the unit vector of each id: those of 205 and 206 are equal."""
    rows = [np.random.default_rng(205 if image == 206 else image).normal(size=DIMENSIONS) for image in ids]
    return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32).reshape(-1, DIMENSIONS)


def exact(query: Vectors, count: int, among: Iterable[int]) -> tuple[list[int], Vectors]:
    """Search by multiplying everything out, equal scores by id."""
    ids = np.array(sorted(among), dtype=np.int64)
    scores = vectors_of(ids.tolist()) @ query
    order = np.lexsort((ids, -scores))[:count]
    return ids[order].tolist(), scores[order]


class Publisher:
    """Writes generations to a store, and knows what the live one has."""

    def __init__(self, store: VectorStore) -> None:
        self.store = store
        self.generations: list[tuple[Generation, Entry]] = []
        self.ids: Ids = np.empty(0, dtype=np.int64)
        self.facts: dict[int, Facts] = {}

    def write(self, ids: Iterable[int], facts: dict[int, Facts], killed_after: int | None = None) -> Entry:
        """Write the next generation and return what the store holds of it, published or not."""
        wanted = np.array(sorted(ids), dtype=np.int64)
        altered = [image for image in np.intersect1d(wanted, self.ids) if facts.get(image) != self.facts.get(image)]

        def vectors(some: Ids) -> Iterator[Vectors]:
            for place in range(0, len(some), 4):
                if killed_after is not None and place >= killed_after:
                    raise Killed
                yield vectors_of(some[place : place + 4].tolist())

        origin = VectorSource(
            "what-and-where", DIMENSIONS, vectors, lambda some: [facts.get(image, Facts()) for image in some.tolist()]
        )
        number = len(self.generations) + 1
        change = Delta(number, wanted, number - 1, self.ids, np.array(altered, dtype=np.int64))
        return self.store.write(origin, change, self.generations[-1][1] if self.generations else None)

    def publish(self, ids: Iterable[int], facts: dict[int, Facts] | None = None) -> Index:
        """Publish the next generation and open it."""
        wanted = np.array(sorted(ids), dtype=np.int64)
        held = self.write(wanted.tolist(), facts or {})
        segments = (
            np.concatenate([self.open_segment_ids(held), wanted]) if held.segments else np.empty(0, dtype=np.int64)
        )
        generation = Generation(len(self.generations) + 1, np.setdiff1d(segments, wanted), wanted)
        self.generations.append((generation, held))
        self.ids, self.facts = wanted, facts or {}
        return self.open()

    def open_segment_ids(self, held: Entry) -> Ids:
        return self.store.open(held, Generation(0, np.empty(0, dtype=np.int64))).ids

    def open(self, generation: int = -1) -> Index:
        """Open a generation, by default the live one."""
        known, held = self.generations[generation]
        return self.store.open(held, known)

    def forget(self) -> None:
        """Keep the live generation and the one before it."""
        self.store.forget({known.number: [held] for known, held in self.generations[-2:]})


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    """Give a server for all tests that leave it as it is."""
    with MilvusLite(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture
def server(milvus: MilvusLite) -> MilvusServer:
    """Give a connection to it."""
    return MilvusServer(MilvusAddress.parse(milvus.address()))


def name_of(path: Path) -> str:
    """Return a prefix of the Milvus collections of one test."""
    return f"whatwhere_{abs(hash(str(path))):x}"


@pytest.fixture(params=["files", "milvus"])
def publisher(request: pytest.FixtureRequest, tmp_path: Path) -> Publisher:
    """Give a publisher to each kind of store."""
    if request.param == "files":
        (tmp_path / "segments").mkdir()
        return Publisher(SegmentStore(Layout(tmp_path), "Flat"))
    return Publisher(MilvusStore(request.getfixturevalue("server"), name_of(tmp_path)))


@pytest.fixture
def remote(server: MilvusServer, tmp_path: Path) -> Publisher:
    """Give a publisher to Milvus."""
    return Publisher(MilvusStore(server, name_of(tmp_path)))


def assert_exact(index: Index, among: Iterable[int]) -> None:
    """Every search finds what multiplying everything out finds."""
    held = sorted(among)
    assert index.ids.tolist() == held
    assert len(index) == len(held)
    for query in vectors_of(range(100, 104)):
        scores, ids = index.search(query, 7)
        expected_ids, expected_scores = exact(query, 7, held)
        assert ids.tolist() == expected_ids
        np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-5)


# --- any store --------------------------------------------------------------------------------------------------


def test_what_was_added_is_found_exactly(publisher: Publisher) -> None:
    """Ids and scores are those of multiplying everything out."""
    index = publisher.publish(range(1, 21))

    assert_exact(index, range(1, 21))


def test_equal_scores_stand_by_id(publisher: Publisher) -> None:
    """Two images with the same vector come in the order of their ids."""
    index = publisher.publish(range(190, 220))

    scores, ids = index.search(vectors_of([205])[0], 2)

    assert ids.tolist() == [205, 206]
    assert scores.tolist() == [1, 1]
    assert index.search(vectors_of([205])[0], 1)[1].tolist() == [205]


def test_fewer_are_found_where_there_are_fewer(publisher: Publisher) -> None:
    """A search for more than there is gives all, and an empty generation nothing."""
    query = vectors_of([1])[0]

    assert len(publisher.publish([1, 2, 3]).search(query, 10)[1]) == 3
    assert publisher.publish([]).search(query, 10)[1].tolist() == []


def test_a_vector_can_be_had_by_its_id(publisher: Publisher) -> None:
    """It is the one that was added; KeyError for what is not there, gone or never come."""
    publisher.publish(range(1, 21))
    index = publisher.publish(range(2, 23))

    np.testing.assert_array_equal(index.vector(7), vectors_of([7])[0])
    for missing in (1, 99):
        with pytest.raises(KeyError):
            index.vector(missing)


def test_a_search_among_some_ids_leaves_out_all_others(publisher: Publisher) -> None:
    """Ids that are not there count for nothing."""
    index = publisher.publish(range(1, 21))
    query = vectors_of([100])[0]
    only = np.array([2, 3, 5, 8, 13, 99], dtype=np.int64)

    scores, ids = index.search(query, 10, only)

    expected_ids, expected_scores = exact(query, 10, [2, 3, 5, 8, 13])
    assert ids.tolist() == expected_ids
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-5)
    assert index.search(query, 10, np.empty(0, dtype=np.int64))[1].tolist() == []


def test_generations_add_and_remove_and_bring_back(publisher: Publisher) -> None:
    """Each has exactly its own, also what went and came again."""
    for ids in (range(1, 11), range(1, 15), [1, 2, 3, 12, 14], range(1, 15), []):
        index = publisher.publish(ids)
        publisher.forget()

        assert_exact(index, ids)


def test_who_reads_a_generation_sees_it_while_the_next_is_written(publisher: Publisher) -> None:
    """Before, in the middle of, and after the writing, and when what only it has is forgotten but one generation."""
    old = publisher.publish(range(1, 13))

    with pytest.raises(Killed):
        publisher.write(range(5, 40), {}, killed_after=8)
    assert_exact(old, range(1, 13))
    new = publisher.publish(range(5, 40))
    publisher.forget()

    assert_exact(old, range(1, 13))
    assert_exact(publisher.open(0), range(1, 13))
    assert_exact(new, range(5, 40))


@pytest.mark.parametrize("killed_after", [0, 4, 16])
def test_what_a_killed_writing_left_is_gone_with_the_next(publisher: Publisher, killed_after: int) -> None:
    """Whatever it got done, and though the next generation is another one."""
    publisher.publish(range(1, 13))
    with pytest.raises(Killed):
        publisher.write([1, *range(20, 60)], {}, killed_after=killed_after)

    index = publisher.publish([*range(2, 13), 21, 70])
    publisher.forget()

    assert_exact(index, [*range(2, 13), 21, 70])


def test_a_killed_first_writing_does_no_harm(publisher: Publisher) -> None:
    """Nothing was published before it."""
    with pytest.raises(Killed):
        publisher.write(range(1, 30), {}, killed_after=8)

    assert_exact(publisher.publish(range(3, 9)), range(3, 9))


def test_several_threads_search_at_once(publisher: Publisher) -> None:
    """Each gets its own answer."""
    index = publisher.publish(range(1, 41))
    queries = vectors_of(range(100, 140))

    with ThreadPoolExecutor(8) as pool:
        found = [ids.tolist() for _, ids in pool.map(lambda query: index.search(query, 5), queries)]

    assert found == [exact(query, 5, range(1, 41))[0] for query in queries]


# --- Milvus -----------------------------------------------------------------------------------------------------


def test_conditions_are_met_as_of_the_generation(remote: Publisher) -> None:
    """An image with new facts has them from the next generation on, and the old ones to the end of the last."""
    query = vectors_of([100])[0]
    before = remote.publish(range(1, 11), {image: Facts((RED,)) for image in (1, 2, 3)})
    after = remote.publish(range(1, 11), {2: Facts((RED,)), 3: Facts((GREEN,)), 4: Facts((RED,))})

    def found(index: Index, token: str) -> list[int]:
        return sorted(index.search(query, 10, Has(token))[1].tolist())

    assert found(before, RED) == [1, 2, 3]
    assert found(after, RED) == [2, 4]
    assert (found(before, GREEN), found(after, GREEN)) == ([], [3])
    assert sorted(after.search(query, 10, opposite(Has(RED)))[1].tolist()) == [1, 3, 5, 6, 7, 8, 9, 10]
    assert_exact(before, range(1, 11))
    assert_exact(after, range(1, 11))


def test_new_facts_of_a_killed_writing_are_gone(remote: Publisher) -> None:
    """The next generation has its own."""
    remote.publish(range(1, 11), {1: Facts((RED,))})
    with pytest.raises(Killed):
        remote.write(range(1, 30), {1: Facts((GREEN,)), 2: Facts((RED,))}, killed_after=4)

    index = remote.publish(range(1, 11), {1: Facts((RED,)), 3: Facts((RED,))})

    assert sorted(index.search(vectors_of([1])[0], 10, Has(RED))[1].tolist()) == [1, 3]
    assert_exact(index, range(1, 11))


def test_many_ids_are_asked_for_in_groups(remote: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of all groups are the best."""
    monkeypatch.setattr("whatwhere.indexer.vectors.milvus.IDS_AT_ONCE", 3)
    index = remote.publish(range(1, 31))
    query, only = vectors_of([100])[0], np.arange(2, 30, 2)

    _, ids = index.search(query, 5, only)

    assert ids.tolist() == exact(query, 5, only.tolist())[0]


def test_only_what_kept_generations_have_stays(remote: Publisher, server: MilvusServer) -> None:
    """Rows that went are deleted, collections that none names dropped, and other people's are left alone."""
    other = Publisher(MilvusStore(server, f"{remote.store.prefix}x"))  # type: ignore[attr-defined]
    theirs = other.publish([1, 2])
    remote.publish(range(1, 11))
    remote.publish(range(3, 11))
    remote.publish(range(5, 11))
    remote.forget()
    (name,) = {held.remote.collection for _, held in remote.generations if held.remote is not None}

    assert server.call("query", name, filter="", output_fields=["count(*)"])[0]["count(*)"] == 8
    remote.generations[-2:] = [(known, Entry()) for known, _ in remote.generations[-2:]]
    remote.forget()
    assert not server.call("has_collection", name)
    assert_exact(theirs, [1, 2])


def test_a_generation_that_lacks_rows_is_not_opened(remote: Publisher, server: MilvusServer) -> None:
    """Whoever deleted them: a search would miss images without a word."""
    remote.publish(range(1, 11))
    remote_entry = remote.generations[0][1].remote
    assert remote_entry is not None
    server.call("delete", remote_entry.collection, filter="image == 3")

    with pytest.raises(CollectionCorrupt, match="has 9 rows of generation 1, not 10: run `whatwhere verify --repair`"):
        remote.open()
    server.call("drop_collection", remote_entry.collection)
    with pytest.raises(CollectionCorrupt, match="are no longer in Milvus"):
        remote.open()


def test_another_index_is_another_collection(remote: Publisher, milvus: MilvusLite) -> None:
    """What was written for one kind is not taken over for another, nor another collection's rows."""
    remote.publish(range(1, 11))
    held = remote.generations[0][1]
    prefix = remote.store.prefix  # type: ignore[attr-defined]
    server = MilvusServer(MilvusAddress.parse(milvus.address("index=HNSW&consistency=Strong")))

    assert remote.store.knows(held)
    assert not MilvusStore(server, prefix).knows(held)
    assert not MilvusStore(remote.store.server, "whatwhere_other").knows(held)  # type: ignore[attr-defined]
    assert not remote.store.knows(Entry())


@pytest.mark.parametrize("kind", ["HNSW", "IVF_FLAT", "AUTOINDEX"])
def test_each_kind_of_index_finds_what_it_should(milvus: MilvusLite, tmp_path: Path, kind: str) -> None:
    """So few vectors are found exactly by any."""
    server = MilvusServer(MilvusAddress.parse(milvus.address(f"index={kind}&consistency=Strong")))

    assert_exact(Publisher(MilvusStore(server, name_of(tmp_path))).publish(range(1, 31)), range(1, 31))


def test_more_results_than_milvus_gives_are_refused_by_name() -> None:
    """The caller is told how far pages go."""
    server = MilvusServer(MilvusAddress("http://127.0.0.1:1"))
    index = MilvusIndex(server, RemoteEntry("x", "FLAT", 20_000, True), 1, np.arange(20_000))

    with pytest.raises(InvalidRequest, match="at most 16,384 results"):
        index.search(vectors_of([1])[0], MOST_RESULTS + 1)


# --- a server that is away or slow ------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_an_error_by_name_at_once() -> None:
    """Nobody waits for minutes, and the address, which is nobody else's business, is not told."""
    port = free_port()
    server = MilvusServer(MilvusAddress.parse(f"milvus+http://127.0.0.1:{port}?timeout=2"), "root:secret")
    started = time.monotonic()

    with pytest.raises(VectorStoreUnavailable, match="did not answer within 2 s") as caught:
        server.call("list_collections", "")

    assert time.monotonic() - started < 8
    assert caught.value.retry_delay_s == 2
    assert str(port) not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_searches_go_on_when_the_server_is_back(tmp_path: Path) -> None:
    """Killed under a reader and started again on the same data: errors by name meanwhile, then the same answers."""
    with MilvusLite(tmp_path / "data") as milvus:
        server = MilvusServer(MilvusAddress.parse(milvus.address("index=FLAT&consistency=Strong&timeout=3")))
        index = Publisher(MilvusStore(server, "whatwhere_x")).publish(range(1, 21))
        assert_exact(index, range(1, 21))

        milvus.kill()
        started = time.monotonic()
        for attempt in (lambda: index.search(vectors_of([1])[0], 3), lambda: index.vector(3), index.ping):
            with pytest.raises(VectorStoreUnavailable):
                attempt()
        assert time.monotonic() - started < 20
        milvus.start()

        wait_until(lambda: outcome(index) is None)  # a connection that failed is tried again within a second
        index.ping()
        assert_exact(index, range(1, 21))


def test_a_server_that_hangs_is_waited_for_no_longer_than_was_said(tmp_path: Path) -> None:
    """It took the request and answers nothing; when it goes on, so do searches."""
    with MilvusLite(tmp_path / "data") as milvus:
        server = MilvusServer(MilvusAddress.parse(milvus.address("index=FLAT&consistency=Strong&timeout=1.5")))
        index = Publisher(MilvusStore(server, "whatwhere_x")).publish(range(1, 21))
        milvus.freeze()
        started = time.monotonic()

        with ThreadPoolExecutor(4) as pool:
            errors = list(pool.map(lambda _: outcome(index), range(4)))

        assert errors == [VectorStoreUnavailable] * 4
        assert time.monotonic() - started < 6
        milvus.thaw()
        assert_exact(index, range(1, 21))


def outcome(index: Index) -> type[BaseException] | None:
    try:
        index.search(vectors_of([1])[0], 3)
    except VectorStoreUnavailable as error:
        return type(error)
    return None


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that brings it is said."""
    monkeypatch.setitem(sys.modules, "pymilvus", None)

    with pytest.raises(VectorLibraryMissing, match=r"pip install 'whatwhere\[milvus\]'"):
        MilvusServer(MilvusAddress("http://127.0.0.1:1")).call("list_collections", "")


# --- addresses --------------------------------------------------------------------------------------------------


def test_an_address_says_where_and_how() -> None:
    """All of it, or nothing but where."""
    assert MilvusAddress.parse("milvus+http://localhost") == MilvusAddress("http://localhost:19530")
    assert MilvusAddress.parse(
        "milvus+https://[::1]:443/?database=photos&index=HNSW&consistency=Eventually&replicas=2&timeout=0.5"
    ) == MilvusAddress("https://[::1]:443", "photos", "HNSW", "Eventually", 2, 0.5)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://localhost", "is not the address of a Milvus"),
        ("milvus+http://", "is not the address of a Milvus"),
        ("milvus+http://localhost/db", "is not the address of a Milvus"),
        ("milvus+http://localhost:port", "is not a valid address"),
        ("milvus+http://root@localhost", "MILVUS_TOKEN"),
        ("milvus+http://root:secret@localhost", "MILVUS_TOKEN"),
        ("milvus+http://localhost?index=hnsw", "index 'hnsw' is not one of AUTOINDEX, FLAT"),
        ("milvus+http://localhost?consistency=bounded", "consistency 'bounded' is not one of Strong"),
        ("milvus+http://localhost?replicas=0", "replicas '0' is not a number from 1 to 100"),
        ("milvus+http://localhost?timeout=nan", "timeout 'nan' is not a number of seconds"),
        ("milvus+http://localhost?timeout=soon", "timeout 'soon' is not a number of seconds"),
        ("milvus+http://localhost?database=a b", "database 'a b' is not a name"),
        ("milvus+http://localhost?database=", "database '' is not a name"),
        ("milvus+http://localhost?token=x", "'token' is not a setting"),
        ("milvus+http://localhost?index=FLAT&index=HNSW", "index is given twice"),
        ("milvus+http://localhost?index", "is not a valid address"),
    ],
)
def test_what_can_be_no_address_is_refused(address: str, message: str) -> None:
    """The wrong part is named, with an example; a password is not repeated."""
    with pytest.raises(InvalidRequest, match=message) as caught:
        MilvusAddress.parse(address)

    assert caught.value.field == "vectors"
    assert "secret" not in str(caught.value)


# --- conditions -------------------------------------------------------------------------------------------------


def test_the_opposite_of_the_opposite_is_the_same() -> None:
    """And never both hold."""
    facts = Facts((RED,))
    for condition in (Has(RED), Has(GREEN)):
        assert opposite(opposite(condition)) == condition
        assert holds(condition, facts) is not holds(opposite(condition), facts)
