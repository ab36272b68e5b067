"""Repair a damaged collection from its sound parts."""

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
    """Repair these faults as far as the sound parts allow, and return the remaining ones.

    `whiteners` is a folder with replacements for lost whiteners. `settings` are for describing the images of lost
    shards again; images whose files no longer exist fail with SHARD_LOST. Raises the errors of opening a collection.
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
            publish(writer.layout, writer.catalog, writer.recipe, found, from_scratch=True)
    if lost:
        describe_again(root, lost, settings, on_progress)
    return verify_collection(root)


def _catalog_mended(layout: Layout) -> bool:
    """Rebuild the indexes of the catalog and tell whether it is sound now."""
    try:
        with Catalog.create(catalog_of(layout)) as catalog, catalog.alone():
            catalog.reindex()
            return not catalog.check()
    except CollectionCorrupt:
        return False
