"""A collection that the first release wrote: it is brought up to date, and answers the same."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command

from tests.conftest import SCIKIT_IMAGE
from whatwhere.indexer.boxes import Box
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.schema import migration_config
from whatwhere.indexer.catalog.sqlite import connect
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.errors import CollectionMismatch
from whatwhere.indexer.maintenance.rebuild import rebuild
from whatwhere.indexer.maintenance.verify import verify_collection
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service.client.client import Client
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

WRITTEN = Path(__file__).parent.parent / "fixtures" / "first_release"
ANSWERS = json.loads((WRITTEN / "answers.json").read_text())
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a copy of the collection as it was written."""
    return shutil.copytree(WRITTEN / "collection.ww", tmp_path / "c.ww")


def assert_answers(root: Path) -> None:
    """Ask a server of today what the first one was asked."""
    server, port = create_server(ServerSettings(root, listen="127.0.0.1:0"))
    server.start()
    with Client(f"127.0.0.1:{port}") as client:
        for descriptor in ("what", "what-and-where", "gem"):
            found = client.search("images/2", SearchOptions(descriptor=descriptor))
            assert [hit.image.name for hit in found.hits] == [name for name, _ in ANSWERS[descriptor]]
            assert [hit.score for hit in found.hits] == pytest.approx(
                [score for _, score in ANSWERS[descriptor]], abs=1e-5
            )
        expected = ANSWERS["region"]
        box = Box(0.1, 0.1, 0.6, 0.7)
        found = client.search("images/2", SearchOptions(descriptor="what", region=box, localize_count=3))
        assert (found.region_fallback, found.kept_factor_count) == (
            expected["region_fallback"],
            expected["kept_factor_count"],
        )
        for hit, (name, score, _) in zip(found.hits, expected["hits"], strict=True):  # boxes are found in today's way
            assert (hit.image.name, hit.score) == (name, pytest.approx(score, abs=1e-5))
    server.stop(grace=None)


def test_it_says_what_to_do(root: Path) -> None:
    """Reading changes nothing, so it does not bring anything up to date."""
    with pytest.raises(CollectionMismatch, match="older version of whatwhere: run `whatwhere rebuild"):
        open_collection(root)


def test_rebuilt_it_answers_the_same(root: Path) -> None:
    """No picture is needed; every id, URI and failure is what it was, and all has its checksum."""
    with closing(sqlite3.connect(root / "catalog.db")) as connection:
        images = connection.execute("SELECT id, content_hash, state, failure_reason FROM images").fetchall()
        uris = connection.execute("SELECT image_id, uri FROM sources").fetchall()

    manifest = rebuild(root)

    assert (manifest.number, manifest.image_count, manifest.recipe.preset) == (2, 8, "thesis")
    assert_answers(root)
    assert verify_collection(root, deep=True) == []
    with Catalog.open(Layout(root).catalog) as catalog:
        records = catalog.images()
    assert [(row.id, row.content_hash, row.state, row.failure_reason) for row in records] == images
    assert {(row.id, uri) for row in records for uri in row.uris} == set(uris)


def test_indexed_into_it_grows_and_answers_the_same(root: Path) -> None:
    """By its own recipe; the next generation is in today's form, the recipe too."""
    index_paths([SCIKIT_IMAGE / "coffee.png"], root, IndexSettings())

    manifest = Manifest.live(Layout(root))
    assert manifest is not None
    assert (manifest.number, manifest.image_count, manifest.has_vectors) == (2, 9, True)
    assert Recipe.load(Layout(root)) == manifest.recipe
    with open_collection(root) as reader:
        vectors = reader.index("gem").vectors
        scores, ids = vectors.search(vectors.vector(2), 9, reader.ids[:8])
    assert ids.tolist() == [int(name.removeprefix("images/")) for name, _ in ANSWERS["gem"]]
    assert scores.tolist() == pytest.approx([score for _, score in ANSWERS["gem"]], abs=1e-5)
    assert verify_collection(root, deep=True) == []


def test_its_catalog_survives_the_way_there_and_back_and_there(root: Path) -> None:
    """Upgrade, downgrade, upgrade on its rows: the same rows, and checksums that are right."""

    def rows() -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(root / "catalog.db")) as connection:
            return [
                *connection.execute("SELECT id, content_hash, state, width, created_at FROM images ORDER BY id"),
                *connection.execute("SELECT id, uri, image_id, modified_ns FROM sources ORDER BY id"),
                *connection.execute("SELECT id, file_name, sha256 FROM shards ORDER BY id"),
                *connection.execute("SELECT name, seq FROM sqlite_sequence"),
            ]

    before = rows()
    for direction, revision in ((command.upgrade, "head"), (command.downgrade, "0001"), (command.upgrade, "head")):
        engine = connect(root / "catalog.db")
        with engine.begin() as connection:
            direction(migration_config(connection), revision)
        engine.dispose()
        assert rows() == before

    with Catalog.open(root / "catalog.db") as catalog:
        assert catalog.check() == []
