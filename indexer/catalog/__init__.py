"""What is known of every image, source, run, shard and generation; the only home of SQLAlchemy."""

from indexer.catalog.catalog import Catalog
from indexer.catalog.records import (
    FAILED,
    INDEXED,
    REMOVED,
    ImageRecord,
    NewImage,
    Outcome,
    ShardRecord,
    Source,
)

__all__ = [
    "FAILED",
    "INDEXED",
    "REMOVED",
    "Catalog",
    "ImageRecord",
    "NewImage",
    "Outcome",
    "ShardRecord",
    "Source",
]
