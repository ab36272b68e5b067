"""Repair a damaged collection as far as what is left allows."""

from collections.abc import Callable, Sequence
from pathlib import Path

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.stores import catalog_of
from whatwhere.indexer.collection.whiteners import find_sound_whiteners
from whatwhere.indexer.collection.writer import open_for_repair
from whatwhere.indexer.errors import CollectionCorrupt
from whatwhere.indexer.maintenance.verify import Fault, Part, verify_collection
from whatwhere.indexer.pipeline.run import describe_again
from whatwhere.indexer.pipeline.settings import IndexSettings, Progress


def repair(
    root: CollectionAddress,
    faults: Sequence[Fault],
    whiteners: Path | None = None,
    settings: IndexSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[Fault]:
    """Mend these faults where what is left allows it, and return those that remain.

    `whiteners` is a folder to take from what the collection has lost; `settings` are those of describing images again
    whose shard was lost. What cannot be described again (its file is gone) is listed as failed with SHARD_LOST.
    """
    parts = {fault.part for fault in faults}
    if not parts:
        return []
    if Part.CATALOG in parts and not _catalog_mended(Layout.at(root)):
        return verify_collection(root)
    damaged = [Path(fault.file).name for fault in faults if fault.part is Part.SHARD]
    with open_for_repair(root) as writer:
        lost = [uri for name in damaged for uri in writer.catalog.lose_shard(name)]
        found = find_sound_whiteners(writer.layout, writer.recipe, whiteners)
        if parts & {Part.SHARD, Part.GENERATION}:
            publish(writer.layout, writer.catalog, writer.recipe, found, anew=True)
    if lost:
        describe_again(root, lost, settings, on_progress)
    return verify_collection(root)


def _catalog_mended(layout: Layout) -> bool:
    """Make the catalogue's indexes anew and tell whether that was all that it lacked."""
    try:
        with Catalog.create(catalog_of(layout)) as catalog, catalog.alone():
            catalog.reindex()
            return not catalog.check()
    except CollectionCorrupt:
        return False
