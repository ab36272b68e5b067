"""A server whose stores are elsewhere: it says which one is away, and goes on by itself when that is back."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import QUERY_PHOTOGRAPH
from tests.milvus import MilvusLite
from tests.object_store import s3_server
from tests.postgres import PostgresServer
from tests.waiting import wait_until
from whatwhere.indexer.collection.stores import Stores
from whatwhere.indexer.errors import WhatwhereError
from whatwhere.indexer.maintenance.transfer import copy_collection
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.service.client.client import Client
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    with MilvusLite(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture(scope="module")
def far(
    collection: Path, postgres: PostgresServer, milvus: MilvusLite, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Copy the photographs' collection to an object store, PostgreSQL and Milvus, and give its address."""
    with s3_server("bucket"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHATWHERE_CACHE", str(tmp_path_factory.mktemp("cache")))
        stores = Stores(postgres.url(postgres.database()), milvus.address())
        copy_collection(collection, "s3://bucket/photographs", stores)
        yield "s3://bucket/photographs"


@pytest.fixture(scope="module")
def client(far: str) -> Iterator[Client]:
    """Give an impatient client of a server of it that looks for a new generation five times a second."""
    serving, port = create_server(ServerSettings(far, listen="127.0.0.1:0", refresh_s=0.2))
    serving.start()
    with Client(f"127.0.0.1:{port}", timeout_s=5) as connected:
        yield connected
    serving.stop(None)


def found(client: Client) -> list[str]:
    return [hit.image.name for hit in client.search("images/1", SearchOptions(page_size=20)).hits]


def missed(client: Client, stop: Callable[[], None], start: Callable[[], None]) -> str:
    """Return the reason that requests fail by while a store is stopped.

    Health says so as well; both end with the store's return, and then the same is found.
    """
    expected = found(client)
    stop()
    with pytest.raises(WhatwhereError) as failure:
        found(client)
    wait_until(lambda: not client.health())
    start()
    wait_until(client.health)
    assert found(client) == expected
    return failure.value.reason


def test_vectors_that_are_away_are_missed_and_found_again(client: Client, milvus: MilvusLite) -> None:
    """Requests fail as unavailable as long as Milvus is away."""
    assert missed(client, milvus.kill, milvus.start) in ("VECTOR_STORE_UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_a_catalog_that_is_away_is_missed_and_found_again(client: Client, postgres: PostgresServer) -> None:
    """The same, of the database."""
    assert missed(client, postgres.stop, postgres.start) in ("CATALOG_UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_a_new_generation_is_served_from_everywhere(client: Client, far: str) -> None:
    """What is indexed on one machine is found on another that only shares the stores."""
    before = client.collection()

    index_paths([QUERY_PHOTOGRAPH], far)
    wait_until(lambda: client.collection().generation > before.generation)

    assert client.collection().image_count == before.image_count + 1
    assert len(found(client)) == before.image_count + 1
