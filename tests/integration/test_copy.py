"""A collection goes from files to object store, PostgreSQL and Milvus, and back: the same images, ids and answers."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.milvus import MilvusLite
from tests.object_store import s3_server
from tests.postgres import PostgresServer
from whatwhere.indexer.catalog.transfer import TABLES
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.stores import Stores, open_catalog
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.errors import CollectionCorrupt, CollectionMismatch, CollectionNotFound, InvalidRequest
from whatwhere.indexer.maintenance.remove import remove_images
from whatwhere.indexer.maintenance.transfer import Copied, copy_collection
from whatwhere.indexer.maintenance.verify import verify_collection
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service.client.client import Client
from whatwhere.service.results import SearchResult
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

BUCKET = "collections"


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    with MilvusLite(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def objects() -> Iterator[str]:
    with s3_server(BUCKET) as endpoint:
        yield endpoint


@pytest.fixture
def stores(postgres: PostgresServer, milvus: MilvusLite) -> Stores:
    return Stores(postgres.url(postgres.database()), milvus.address())


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name an object store's folder of the test's own, with a cache of its own."""
    monkeypatch.setenv("WHATWHERE_CACHE", str(tmp_path / "cache"))
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture(scope="module")
def source(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the photographs' collection, with metadata, a removed image and a second generation."""
    root = tmp_path_factory.mktemp("source") / "photographs.ww"
    shutil.copytree(collection, root)
    with open_for_writing(root) as writer:
        (image, *_) = writer.catalog.images(limit=1)
        writer.catalog.set_metadata("file", {image.uris[0]: {"label": "first", "years": [1969, 2001.5]}})
        last = writer.catalog.max_id()
    remove_images(root, [last])
    return root


def rows_of(address: Path | str) -> dict[str, list[Any]]:
    with open_catalog(Layout.at(address)) as catalog:
        return {table: catalog.export_rows(table, count=10_000) for table in TABLES}


def answers(address: Path | str) -> list[SearchResult]:
    """Ask a server of the collection: by stored image, region, filter, with expansion and boxes."""
    serving, port = create_server(ServerSettings(address, listen="127.0.0.1:0", refresh_s=0))
    serving.start()
    try:
        with Client(f"127.0.0.1:{port}") as client:
            asked = [{}, {"expansion_count": 2}, {"filter": 'label = "first" OR years > 2000'}, {"localize_count": 3}]
            return [client.search("images/1", SearchOptions(page_size=20, **each)) for each in asked]
    finally:
        serving.stop(None)


def assert_same_answers(found: list[SearchResult], expected: list[SearchResult]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert [hit.image for hit in ours.hits] == [hit.image for hit in theirs.hits]
        assert [hit.box for hit in ours.hits] == [hit.box for hit in theirs.hits]
        np.testing.assert_allclose(
            [hit.score for hit in ours.hits], [hit.score for hit in theirs.hits], rtol=0, atol=1e-5
        )


def test_answers_are_equal_on_outside_stores_and_after_coming_back(
    source: Path, far: str, stores: Stores, tmp_path: Path
) -> None:
    expected = answers(source)
    assert [len(result.hits) for result in expected] == [7, 7, 1, 7]

    there = copy_collection(source, far, stores)
    found_far = answers(far)
    back = copy_collection(far, tmp_path / "back.ww")

    assert (there.images, back.images) == (7, 7)
    assert_same_answers(found_far, expected)
    assert_same_answers(answers(tmp_path / "back.ww"), expected)
    assert verify_collection(far, deep=True) == []
    assert not (Layout.at(far).root / "catalog.db").exists()
    # What else there is of generations are the new ones that were published on the way.
    for table in TABLES[:-1]:
        assert rows_of(far)[table] == rows_of(source)[table]
        assert rows_of(tmp_path / "back.ww")[table] == rows_of(source)[table]


def test_between_files_the_copy_is_the_same_byte_for_byte(source: Path, tmp_path: Path) -> None:
    """But for the manifest, which has the identity of the copy."""
    copy_collection(source, tmp_path / "copy.ww")

    names = ("shards", "segments", "whiteners", "generations/000002/removed.npy")
    for path in (path for name in names for path in [source / name, *(source / name).rglob("*")] if path.is_file()):
        assert (tmp_path / "copy.ww" / path.relative_to(source)).read_bytes() == path.read_bytes()
    assert rows_of(tmp_path / "copy.ww") == rows_of(source)


def test_a_copy_goes_on_as_the_collection_that_it_is(source: Path, far: str, stores: Stores, photographs: Path) -> None:
    """New pictures get the next ids, removed ones stay out, and nothing is described again."""
    copy_collection(source, far, stores)
    with open_catalog(Layout.at(far)) as catalog:
        last = catalog.max_id()

    summary = index_paths([str(photographs)], far, IndexSettings(checksum=True))

    assert (summary.progress.described, summary.progress.failed, summary.images) == (0, 0, 7)
    with open_catalog(Layout.at(far)) as catalog:
        assert catalog.max_id() == last


class _Stop(Exception):
    pass


@pytest.mark.parametrize("stage", ["files", "images", "sources"])
def test_a_copy_that_was_stopped_goes_on_and_copies_nothing_twice(
    source: Path, far: str, stores: Stores, stage: str
) -> None:
    stages: list[str] = []

    def stop(reached: str, *_: int) -> None:
        if reached == stage:
            raise _Stop

    with pytest.raises(_Stop):
        copy_collection(source, far, stores, stop)
    done = copy_collection(source, far, stores, lambda reached, done, _: stages.append(f"{reached} {done}"))

    assert done.images == 7
    assert len(stages) == len(set(stages))
    assert ("images 8" in stages) == (stage == "files")  # all rows go in one group, which was kept
    for table in TABLES[:-1]:
        assert rows_of(far)[table] == rows_of(source)[table]


def test_a_finished_copy_is_not_made_again(source: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    first = copy_collection(source, tmp_path / "copy.ww")

    again = copy_collection(source, tmp_path / "copy.ww", None, lambda reached, *_: stages.append(reached))

    assert again == first == Copied(images=7, shards=1, generation=2)
    assert stages == []


def test_another_collection_is_not_written_over(source: Path, collection: Path, tmp_path: Path) -> None:
    shutil.copytree(collection, tmp_path / "other.ww")

    with pytest.raises(CollectionMismatch, match=r"other\.ww contains other images than .*: copy to a new place"):
        copy_collection(source, tmp_path / "other.ww")
    with open_collection(tmp_path / "other.ww") as reader:
        assert len(reader.ids) == 8


def test_a_damaged_shard_is_found_at_the_source(source: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.ww"
    shutil.copytree(source, broken)
    (shard,) = (broken / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")

    with pytest.raises(CollectionCorrupt, match=r"broken\.ww is missing or damaged: run `whatwhere verify --repair`"):
        copy_collection(broken, tmp_path / "copy.ww")


def test_an_object_store_needs_a_database_for_its_catalog(source: Path, far: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot contain a SQLite database: give a PostgreSQL database"):
        copy_collection(source, far)


def test_nothing_is_copied_from_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(CollectionNotFound, match="has no published generation"):
        copy_collection(tmp_path / "none.ww", tmp_path / "copy.ww")
    assert not (tmp_path / "copy.ww").exists()
