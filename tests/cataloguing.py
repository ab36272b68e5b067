"""Small catalogues for tests: what is recorded in them, and what is done to them past the catalogue."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from alembic.config import Config

from indexer.catalog import Catalog, NewImage, Outcome, ShardRecord, Source
from indexer.catalog.database import connect, migration_config


def source(name: str, *, byte_count: int = 10, modified_ns: int = 1) -> Source:
    """Return a source by the end of its URI."""
    return Source(f"file:///{name}", byte_count, modified_ns)


def described(content: str, row: int = 0) -> NewImage:
    """Return described content, in a row of its chunk's shard."""
    return NewImage(content, 10, 640, 480, "image/jpeg", row)


def failed(content: str | None, reason: str = "UNREADABLE_IMAGE") -> NewImage:
    """Return content that failed, None for content that could not be read."""
    return NewImage(content, 10, failure_reason=reason, failure_message=f"it failed: {reason}")


def keep(catalog: Catalog, *outcomes: Outcome) -> None:
    """Record a chunk, with a shard where an image of it was described."""
    count = sum(outcome.image is not None and outcome.image.shard_row is not None for outcome in outcomes)
    number = max((int(Path(shard.file_name).stem) for shard in catalog.shards()), default=0) + 1
    shard = ShardRecord(f"{number:08d}.safetensors", count, 100, "0" * 64)
    catalog.record_chunk(outcomes, shard if count else None)


def states(catalog: Catalog) -> dict[str | None, str]:
    """Return the state of every image by its content."""
    return {image.content_hash: image.state for image in catalog.images()}


def raw(path: Path, query: str) -> list[tuple[object, ...]]:
    """Run a statement past the catalogue."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(query).fetchall()


def migrate(path: Path, direction: Callable[[Config, str], None], revision: str) -> None:
    """Run migrations as the catalogue does, in one transaction."""
    with connect(path).begin() as connection:
        direction(migration_config(connection), revision)
