"""Reclaim the space of removed images."""

from dataclasses import dataclass

from whatwhere.indexer.collection.compaction import compact_shards
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import open_for_writing


@dataclass(frozen=True)
class Reclaimed:
    """Size of shards, vectors and catalog before and after, in bytes, and the number of the live generation."""

    before: int
    after: int
    generation: int


def compact(root: CollectionAddress) -> Reclaimed:
    """Reclaim the space of removed images: complete shards, one segment per descriptor, a smaller catalog.

    Raises the errors of opening a collection for writing.
    """
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
