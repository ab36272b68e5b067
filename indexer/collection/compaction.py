"""Rewrite shards without removed images, and merge small ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.records import ShardRecord
from whatwhere.indexer.collection.shards import read_descriptions
from whatwhere.indexer.collection.writer import CollectionWriter
from whatwhere.indexer.features.description import Description

ROWS_AT_MOST = 256
SMALL = ROWS_AT_MOST // 2  # rows; shards with fewer are merged


@dataclass(frozen=True)
class _Place:
    image_id: int
    shard_id: int
    file_name: str
    row: int


def compact_shards(writer: CollectionWriter) -> None:
    """Move the live images of small shards and of shards with removed images to new shards; delete the old ones.

    New files are written first, then one transaction moves all images, then the old files are deleted. If the process
    is killed in between, the next compaction deletes the unrecorded files. A reader that finds no old file asks the
    catalog again.
    """
    places = [_Place(*place) for place in writer.catalog.live_places()]
    worn = _worn(writer.catalog.shards(), places)
    moving = [place for place in places if place.shard_id in worn]
    new: list[tuple[ShardRecord, list[tuple[int, int]]]] = []
    for group in batched(moving, ROWS_AT_MOST):
        shard = writer.write_shard([*_read(writer, group)], ahead=len(new))
        new.append((shard, [(place.image_id, row) for row, place in enumerate(group)]))
    writer.catalog.replace_shards(sorted(worn), new)
    _remove_unrecorded(writer)
    writer.catalog.vacuum()


def _worn(shards: Sequence[ShardRecord], places: Sequence[_Place]) -> set[int]:
    """Return the ids of shards to rewrite: those with removed images, and small ones if there are several."""
    left = {shard_id: len([*group]) for shard_id, group in groupby(places, attrgetter("shard_id"))}
    small = {shard.id for shard in shards if left.get(shard.id, 0) < SMALL}
    gaps = {shard.id for shard in shards if left.get(shard.id, 0) < shard.image_count}
    return gaps | small if len(gaps | small) > 1 else gaps


def _read(writer: CollectionWriter, places: Sequence[_Place]) -> Iterator[Description]:
    for file_name, group in groupby(places, attrgetter("file_name")):
        path = writer.layout.fetch(writer.layout.shards / file_name)
        yield from read_descriptions(path, [place.row for place in group], writer.identity)


def _remove_unrecorded(writer: CollectionWriter) -> None:
    """Delete unrecorded shards, except those newer than all recorded ones.

    A catalog from a backup does not contain the shards that were written after it.
    """
    recorded = {shard.file_name for shard in writer.catalog.shards()}
    for name in writer.layout.names(writer.layout.shards):
        if name not in recorded and name < max(recorded, default=""):
            writer.layout.discard(writer.layout.shards / name)
