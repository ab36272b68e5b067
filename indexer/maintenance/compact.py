"""Reclaim the space of removed images."""

from dataclasses import dataclass

from whatwhere.indexer.collection.compaction import compact_shards
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import open_for_writing


@dataclass(frozen=True)
class Reclaimed:
    """Bytes of shards, vectors and catalogue before and after, and the generation that was published."""

    before: int
    after: int
    generation: int


def compact(root: CollectionAddress) -> Reclaimed:
    """Reclaim the space of what was removed: shards without gaps, one segment a descriptor, a smaller catalogue."""
    layout = Layout.at(root)
    with open_for_writing(root) as writer:
        before = _bytes(layout)
        compact_shards(writer)
        whiteners = find_whiteners(layout, writer.recipe)
        published = publish(layout, writer.catalog, writer.recipe, whiteners, merged=True)
    return Reclaimed(before, _bytes(layout), published.manifest.number)


def _bytes(layout: Layout) -> int:
    catalog = sum(path.stat().st_size for path in layout.root.glob("catalog.db*"))
    return layout.byte_count(layout.shards) + layout.byte_count(layout.segments) + catalog
