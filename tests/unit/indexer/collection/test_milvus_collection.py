"""A collection with its vectors in Milvus answers as one with its vectors in files."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.made_up import OTHER_WHITENERS, RECIPE, WHITENERS, append
from tests.milvus import MilvusLite
from whatwhere.indexer.collection.compaction import compact_shards
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.stores import Stores
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import CollectionWriter, open_for_writing
from whatwhere.indexer.errors import CollectionCorrupt, CollectionMismatch, InvalidRequest
from whatwhere.indexer.metadata.filters import parse
from whatwhere.service.search.searcher import Query, Searcher

pytestmark = pytest.mark.takes(50)

HERE = replace(RECIPE, descriptors=("what",))
FILTERS = (
    None,
    'label = "boat"',
    "number > 10 AND NOT tags:odd",
    'taken < "2024-01-15" OR label != tree',
    "label = *oat",  # only the catalogue can say
    'number >= 1000 AND label = "boat"',  # none
)


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    """Give a server."""
    with MilvusLite(tmp_path_factory.mktemp("milvus")) as server:
        yield server


class Pair:
    """Two collections of the same, one with its vectors in files, the other in Milvus."""

    def __init__(self, folder: Path, milvus: MilvusLite) -> None:
        self.files, self.remote = folder / "files.ww", folder / "remote.ww"
        self._stores = {self.files: Stores(), self.remote: Stores(vectors=milvus.address())}

    def change(self, do: str, *seeds: int, whiteners: Mapping[str, object] = WHITENERS) -> list[Manifest | None]:
        """Do the same to both and publish."""
        published = []
        for root, stores in self._stores.items():
            with open_for_writing(root, HERE, stores) as writer:
                getattr(self, f"_{do}")(writer, seeds)
                used = {name: whiteners[name] for name in HERE.descriptors}
                made = publish(writer.layout, writer.catalog, HERE, used)  # type: ignore[arg-type]
                published.append(made.manifest if made.is_new else None)
        return published

    def _nothing(self, writer: CollectionWriter, _: tuple[int, ...]) -> None:
        pass

    def _add(self, writer: CollectionWriter, seeds: tuple[int, ...]) -> None:
        append(writer, *seeds)
        self.describe(writer, {seed: metadata(seed) for seed in seeds})

    def describe(self, writer: CollectionWriter, values: Mapping[int, Mapping[str, object]]) -> None:
        writer.catalog.set_metadata("file", {f"file:///{seed}.jpg": said for seed, said in values.items()})

    def _relabel(self, writer: CollectionWriter, seeds: tuple[int, ...]) -> None:
        self.describe(writer, {seed: {**metadata(seed), "label": "boat"} for seed in seeds})

    def _remove(self, writer: CollectionWriter, seeds: tuple[int, ...]) -> None:
        writer.catalog.remove([writer.catalog.id_of_content(f"{seed}") or 0 for seed in seeds])

    def _restore(self, writer: CollectionWriter, seeds: tuple[int, ...]) -> None:
        writer.catalog.restore([image.id for image in writer.catalog.images() if image.content_hash in map(str, seeds)])

    def _compact(self, writer: CollectionWriter, _: tuple[int, ...]) -> None:
        compact_shards(writer)
        publish(writer.layout, writer.catalog, HERE, {name: WHITENERS[name] for name in HERE.descriptors}, merged=True)

    def assert_same_answers(self) -> None:
        """Ids and scores of searches by stored images, with filters, with expansion, by page."""
        with open_collection(self.files) as files, open_collection(self.remote) as remote:
            assert remote.ids.tolist() == files.ids.tolist()
            first, second = (Searcher(reader, None) for reader in (files, remote))  # type: ignore[arg-type]
            for image_id in files.ids[:3].tolist():
                for text in FILTERS:
                    query = Query(
                        image_id=image_id,
                        filter=None if text is None else parse(text),
                        expansion_count=2 * (image_id % 2),
                        offset=image_id % 3,
                        count=5,
                    )
                    assert_same(first, second, query)


def metadata(seed: int) -> dict[str, object]:
    """Return what is said of an image."""
    return {
        "number": seed,
        "label": "boat" if seed % 3 == 0 else "tree",
        "tags": ["odd"] if seed % 2 else ["even", seed],
        "taken": f"2024-01-{1 + seed % 28:02}T12:00:00Z",
    }


def assert_same(files: Searcher, remote: Searcher, query: Query) -> None:
    expected, found = files.search(query), remote.search(query)
    assert [hit.image.name for hit in found.hits] == [hit.image.name for hit in expected.hits], query
    assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in expected.hits], abs=1e-5)
    assert found.has_more == expected.has_more


@pytest.fixture
def pair(tmp_path: Path, milvus: MilvusLite) -> Pair:
    """Give two collections of thirty images."""
    both = Pair(tmp_path, milvus)
    both.change("add", *range(1, 31))
    return both


def found(root: Path, text: str) -> list[str]:
    """Return the places of the images that a search with a filter finds, sorted."""
    with open_collection(root) as reader:
        searcher = Searcher(reader, None)  # type: ignore[arg-type]
        hits = searcher.search(Query(image_id=int(reader.ids[0]), filter=parse(text), count=50)).hits
    return sorted(hit.image.uris[0] for hit in hits)


def test_answers_are_the_same_through_all_that_happens_to_a_collection(pair: Pair) -> None:
    """Added to, removed from, restored, relabelled, compacted, published by other whiteners."""
    pair.assert_same_answers()
    for do, *seeds in (("add", 41, 42), ("remove", 2, 3, 4), ("restore", 3), ("relabel", 5, 7, 41), ("compact",)):
        pair.change(str(do), *map(int, seeds))
        pair.assert_same_answers()
    pair.change("nothing", whiteners=OTHER_WHITENERS)
    pair.assert_same_answers()


def test_the_folder_has_no_vectors(pair: Pair) -> None:
    """The ids, and what tells whether facts changed, and where the rest is."""
    layout = Layout(pair.remote)
    manifest = Manifest.live(layout)
    assert manifest is not None

    assert layout.names(layout.segments) == []
    assert layout.names(layout.generation(1)) == ["facts.npy", "ids.npy", "manifest.json", "removed.npy"]
    assert {name: entry.remote and entry.remote.vector_count for name, entry in manifest.indexes.items()} == {
        "what": 30
    }
    assert "remote" not in Layout(pair.files).generation(1).joinpath("manifest.json").read_text()


def test_nothing_is_published_where_nothing_changed(pair: Pair) -> None:
    """Metadata that changed is a change to Milvus, which answers filters, and none to files, which do not."""
    assert pair.change("nothing") == [None, None]

    files, remote = pair.change("relabel", 1)

    assert files is None
    assert remote is not None
    assert remote.number == 2


def test_metadata_that_changed_since_gives_no_wrong_hit(pair: Pair) -> None:
    """What fits no longer is left out at once; what fits by now is found from the next generation on."""
    with open_for_writing(pair.remote) as writer:
        pair.describe(writer, {3: {"label": "tree"}, 4: {"label": "boat"}})
        boats = [f"file:///{seed}.jpg" for seed in range(6, 31, 3)]
        assert found(pair.remote, "label = boat") == sorted(boats)

        publish(writer.layout, writer.catalog, HERE, find_whiteners(writer.layout, HERE))

    assert found(pair.remote, "label = boat") == sorted([*boats, "file:///4.jpg"])


def test_more_facts_than_milvus_takes_leave_filters_to_the_catalog(pair: Pair) -> None:
    """Of one image only: answers stay right."""
    with open_for_writing(pair.remote) as writer:
        pair.describe(writer, {3: {"label": "boat", "tags": [f"{number}" for number in range(5000)]}})
        manifest = publish(writer.layout, writer.catalog, HERE, find_whiteners(writer.layout, HERE)).manifest

    assert manifest.indexes["what"].remote is not None
    assert not manifest.indexes["what"].remote.filterable
    assert found(pair.remote, "tags:4999") == ["file:///3.jpg"]
    assert found(pair.remote, "label = boat AND number < 7") == ["file:///6.jpg"]


def test_a_reader_keeps_its_generation_to_the_end(pair: Pair) -> None:
    """While and after the next is published, as with files."""
    with open_collection(pair.remote) as reader:
        index = reader.index("what").vectors
        before = index.search(index.vector(9), 30)
        pair.change("remove", 1, 2, 3)

        after = index.search(index.vector(9), 30)

    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_allclose(after[0], before[0], rtol=0, atol=1e-6)


def test_two_collections_share_a_milvus(pair: Pair, tmp_path: Path, milvus: MilvusLite) -> None:
    """And one that is copied as files does not take the other's rows for its own to change, where its id is another."""
    other = Pair(tmp_path / "other", milvus)
    other.change("add", 1, 2, 3)

    pair.assert_same_answers()
    other.assert_same_answers()
    assert Identity.of(Layout(pair.remote)).id[:16] != Identity.of(Layout(other.remote)).id[:16]


def test_vectors_move_into_files_and_back(pair: Pair, milvus: MilvusLite) -> None:
    """The next generation goes where stores.json says."""
    layout = Layout(pair.remote)
    stores = layout.stores.read_text()
    layout.stores.unlink()
    with pytest.raises(CollectionMismatch, match=r"stores\.json has no address"):
        open_collection(pair.remote)

    with open_for_writing(pair.remote) as writer:
        publish(layout, writer.catalog, HERE, find_whiteners(layout, HERE))
    assert len(layout.names(layout.segments)) == 1
    pair.assert_same_answers()
    layout.stores.write_text(stores)
    pair.assert_same_answers()
    with open_for_writing(pair.remote) as writer:
        publish(layout, writer.catalog, HERE, find_whiteners(layout, HERE))
        publish(layout, writer.catalog, HERE, find_whiteners(layout, HERE), from_scratch=True)
        publish(layout, writer.catalog, HERE, find_whiteners(layout, HERE), from_scratch=True)

    assert layout.names(layout.segments) == []
    pair.assert_same_answers()


@pytest.mark.parametrize("name", ["ids.npy", "facts.npy"])
def test_a_damaged_file_of_a_generation_is_noticed(pair: Pair, name: str) -> None:
    """By who opens the generation, or by who publishes the next; a rebuild mends it."""
    layout = Layout(pair.remote)
    path = layout.generation(1) / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    use = {"ids.npy": lambda: open_collection(pair.remote), "facts.npy": lambda: pair.change("add", 31)}[name]
    with pytest.raises(CollectionCorrupt, match=f"{name} is missing or changed"):
        use()
    with open_for_writing(pair.remote) as writer:
        publish(layout, writer.catalog, HERE, find_whiteners(layout, HERE), from_scratch=True)
    assert found(pair.remote, "number = 9") == ["file:///9.jpg"]


def test_a_factory_of_files_is_refused(tmp_path: Path, milvus: MilvusLite) -> None:
    """The kind of index stands in the address."""
    recipe = replace(HERE, index_factory="HNSW32")
    with open_for_writing(tmp_path / "c.ww", recipe, Stores(vectors=milvus.address())) as writer:
        append(writer, 1)
        with pytest.raises(InvalidRequest, match=r"set \?index=\.\.\. in the vectors"):
            publish(writer.layout, writer.catalog, recipe, {name: WHITENERS[name] for name in HERE.descriptors})


def test_collections_in_files_do_not_pay_for_it() -> None:
    """Not even our own side of it imports the library before a server is asked for something."""
    program = "import sys, whatwhere.indexer.vectors.milvus; print('pymilvus' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
