"""Compare the contents of two collections, and check that one is intact and answers queries."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.shards import read_descriptions
from whatwhere.indexer.errors import CollectionNotFound
from whatwhere.indexer.maintenance.verify import verify_collection

# What differs from run to run: times, checksums over them, numbers that no caller sees; and checksums of shards, which
# hold the id of their collection.
_CHANGING = {"created_at", "updated_at", "removed_at", "vanished_at", "checksum"}
_HIDDEN = {"sources": {"id"}, "properties": {"id"}, "shards": {"id", "sha256"}, "images": {"shard_id"}}
Answers = dict[str, list[int]]


def contents(root: Path) -> dict[str, Any]:
    """Return the catalog, each image's data in the shards, the live generation's vectors, and the files."""
    return {
        "catalogue": _catalog(root),
        "descriptions": _descriptions(root),
        "vectors": _vectors(root),
        "files": _files(root),
    }


def _catalog(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of all tables of contents, without times."""
    with closing(sqlite3.connect(Layout(root).catalog)) as connection:
        connection.row_factory = sqlite3.Row
        tables = {}
        for table in ("images", "sources", "properties", "shards"):
            rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # a name from above
            left_out = _CHANGING | _HIDDEN[table]
            tables[table] = sorted(
                (tuple((name, row[name]) for name in row.keys() if name not in left_out) for row in rows),  # noqa: SIM118
                key=repr,
            )
        removed = connection.execute("SELECT id, removed_at IS NULL FROM images ORDER BY id").fetchall()
        tables["removed for good"] = [tuple(row) for row in removed]
    return tables


def _descriptions(root: Path) -> dict[int, list[bytes]]:
    query = (
        "SELECT images.id, shards.file_name, images.shard_row FROM images JOIN shards ON shards.id = images.shard_id "
        "WHERE images.state = 'indexed'"
    )
    with closing(sqlite3.connect(Layout(root).catalog)) as connection:
        places = connection.execute(query).fetchall()
    found = {}
    for image_id, file_name, row in places:
        (description,) = read_descriptions(Layout(root).shards / file_name, [row])
        factors = description.factors
        arrays = (factors.where, factors.where_scale, factors.what, factors.what_scale, *description.pooled.values())
        found[image_id] = [np.asarray(array).tobytes() for array in arrays]
    return found


def _vectors(root: Path) -> dict[str, dict[int, bytes]]:
    with open_collection(root) as reader:
        return {
            name: {int(image_id): index.vectors.vector(int(image_id)).tobytes() for image_id in index.vectors.ids}
            for name, index in reader.indexes.items()
        }


def _files(root: Path) -> dict[str, list[str]]:
    """Return the names of shards and whiteners, and the leftovers of failed work."""
    layout = Layout(root)
    manifests = [Manifest.load(layout.generation(number)) for number in layout.generation_numbers()]
    entries = [entry for manifest in manifests for entry in manifest.indexes.values()]
    segments = {segment.file_name for entry in entries for segment in entry.segments}
    return {
        "shards": sorted(path.name for path in layout.shards.iterdir()),
        "whiteners": sorted(path.name for path in layout.whiteners.iterdir()),
        "segments that nothing names": sorted({path.name for path in layout.segments.iterdir()} - segments),
        "temporary": sorted(path.name for path in root.rglob("*.tmp")),
    }


def answers(root: Path) -> tuple[int, Answers]:
    """Return the live generation's number and, by descriptor, the ids that a search by its first image finds.

    CollectionNotFound before the first generation.
    """
    with open_collection(root) as reader:
        found = {}
        for name, index in reader.indexes.items():
            query = index.vectors.vector(int(index.vectors.ids[0]))
            _, ids = index.vectors.search(query, len(index.vectors))
            found[name] = ids.tolist()
        return reader.manifest.number, found


def faults(root: Path) -> list[str]:
    """Return the faults that verification finds; none if there is no collection yet."""
    try:
        return [f"{fault.file}: {fault.problem}" for fault in verify_collection(root)]
    except CollectionNotFound as error:
        return [str(error)] if Layout(root).current.exists() else []
