"""Fill small catalogs for tests, and change them behind the catalog's back."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from alembic.config import Config
from psycopg.types.json import set_json_loads
from sqlalchemy import Connection

from whatwhere.indexer.catalog.catalog import Catalog, backend_of
from whatwhere.indexer.catalog.database import CatalogAddress
from whatwhere.indexer.catalog.records import NewImage, Outcome, ShardRecord, Source
from whatwhere.indexer.catalog.schema import migration_config


def source(name: str, *, byte_count: int = 10, modified_ns: int = 1) -> Source:
    """Return a source by the end of its URI."""
    return Source(f"file:///{name}", byte_count, modified_ns)


def described(content: str, row: int = 0) -> NewImage:
    """Return a described image, in a row of its chunk's shard."""
    return NewImage(content, 10, 640, 480, "image/jpeg", row)


def failed(content: str | None, reason: str = "UNREADABLE_IMAGE") -> NewImage:
    """Return a failed image; `content` is None if it could not be read."""
    return NewImage(content, 10, failure_reason=reason, failure_message=f"it failed: {reason}")


def keep(catalog: Catalog, *outcomes: Outcome) -> None:
    """Record a chunk, with a shard if one of its images was described."""
    count = sum(outcome.image is not None and outcome.image.shard_row is not None for outcome in outcomes)
    number = max((int(Path(shard.file_name).stem) for shard in catalog.shards()), default=0) + 1
    shard = ShardRecord(f"{number:08d}.safetensors", count, 100, "0" * 64)
    catalog.record_chunk(outcomes, shard if count else None)


def states(catalog: Catalog) -> dict[str | None, str]:
    """Return the state of every image by its content."""
    return {image.content_hash: image.state for image in catalog.images()}


def raw(address: CatalogAddress, query: str) -> list[tuple[object, ...]]:
    """Run a statement directly; references are not checked, and JSON is returned as text."""
    if isinstance(address, Path):
        with closing(sqlite3.connect(address)) as connection, connection:
            return connection.execute(query).fetchall()
    options = "-c search_path=whatwhere -c session_replication_role=replica -c timezone=UTC"
    with psycopg.connect(address.replace("+psycopg", ""), options=options) as server:
        set_json_loads(lambda text: text if isinstance(text, str) else text.decode(), server)
        cursor = server.execute(query)
        return cursor.fetchall() if cursor.description else []


def migrate(address: CatalogAddress, direction: Callable[[Config, str], None], revision: str) -> None:
    """Run migrations as the catalog does, in one transaction."""
    with migrating(address) as connection:
        direction(migration_config(connection), revision)


@contextmanager
def migrating(address: CatalogAddress) -> Iterator[Connection]:
    """Yield a connection in a transaction that may change tables."""
    backend = backend_of(address)
    engine = backend.engine(read_only=False)
    with backend.writing(engine) as connection, connection.begin():
        backend.prepare(connection)
        yield connection
    engine.dispose()
