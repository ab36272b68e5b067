"""Say what a collection holds, for people and programs that look at it from outside. Needs no torch."""

from dataclasses import asdict
from typing import Any

from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.manifest import IndexEntry, Manifest
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.stores import Stores, open_catalog


def inspect_collection(address: CollectionAddress) -> dict[str, Any]:
    """Return counts, recipe, live generation and bytes on disk. Raises the errors of opening a collection."""
    layout = Layout.at(address)
    made_by = Recipe.load(layout)
    manifest = Manifest.live(layout)
    with open_catalog(layout) as catalog:
        images, skipped = catalog.counts(), catalog.skipped_kinds()
    return {
        "collection": str(layout),
        "id": Identity.of(layout).id,
        "stores": asdict(Stores.of(layout)),
        "images": images,
        "skipped": skipped,
        "generation": manifest.number if manifest else None,
        "searchable_images": manifest.image_count if manifest else 0,
        "published_at": manifest.created_at.isoformat() if manifest else None,
        "recipe": asdict(manifest.recipe if manifest else made_by),
        "indexes": {name: _described(entry) for name, entry in (manifest.indexes if manifest else {}).items()},
        "vectors": {name: _vectors(entry) for name, entry in (manifest.indexes if manifest else {}).items()},
        "libraries": manifest.libraries if manifest else {},
        "bytes": {
            "catalog": sum(path.stat().st_size for path in layout.root.glob("catalog.db*")),
            "shards": layout.byte_count(layout.shards),
            "segments": layout.byte_count(layout.segments),
            "generations": layout.byte_count(layout.generations),
            "whiteners": layout.byte_count(layout.whiteners),
        },
    }


def _vectors(entry: IndexEntry) -> dict[str, Any]:
    """Return how many vectors a descriptor has, their length, and the kinds of index that hold them."""
    held = [(segment.vector_count, segment.factory) for segment in entry.segments]
    if entry.remote is not None:
        held.append((entry.remote.vector_count, f"{entry.remote.index} in Milvus"))
    kinds = list(dict.fromkeys(kind for _, kind in held))
    return {"count": sum(count for count, _ in held), "dimensions": entry.dimensions, "kinds": kinds}


def _described(entry: IndexEntry) -> str:
    """Describe one descriptor's vectors in a line."""
    parts = [f"{segment.vector_count:,} {segment.factory}" for segment in entry.segments]
    if entry.remote is not None:
        parts.append(f"{entry.remote.vector_count:,} {entry.remote.index} in Milvus")
    whiteners = " and ".join(whitener[:12] for whitener in entry.whiteners)
    return f"{', '.join(parts) or 'empty'}, {entry.dimensions} dimensions, whitened by {whiteners}"
