"""Keep a collection well: derive its vectors anew, reclaim space, mend what is damaged.

None of it needs a picture or the network, but to describe the images of a lost shard again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.catalog import Catalog
from indexer.collection import (
    Address,
    Layout,
    Manifest,
    catalog_of,
    find_sound_whiteners,
    find_whiteners,
    open_for_repair,
    open_for_writing,
    publish,
)
from indexer.collection.compaction import compact_shards
from indexer.errors import CollectionCorrupt
from indexer.methods import DESCRIPTORS, find_method
from indexer.pipeline import IndexSettings, Progress, describe_again
from indexer.verify import Fault, Part, verify_collection


@dataclass(frozen=True)
class RebuildSettings:
    """What vectors are derived by. None means: as they are now."""

    descriptors: tuple[str, ...] | None = None
    preset: str | None = None
    whiteners: Path | None = None  # a folder of whiteners in place of those in use
    index_factory: str | None = None


@dataclass(frozen=True)
class Reclaimed:
    """Bytes of shards, vectors and catalogue before and after, and the generation that was published."""

    before: int
    after: int
    generation: int


def rebuild(root: Address, settings: RebuildSettings | None = None) -> Manifest:
    """Publish a generation whose every vector was derived again from the shards: no picture, no network.

    Brings a collection of an older version up to date. Raises InvalidRequest where descriptors need what shards do not
    keep or the index factory cannot be trained, UnknownName, WhitenerUnavailable; then the old generation stays.
    """
    settings = settings or RebuildSettings()
    with open_for_writing(root) as writer:
        own = writer.recipe
        preset = settings.preset or own.preset
        chosen = {find_method(name, preset).name for name in settings.descriptors or own.descriptors}
        descriptors = tuple(name for name in DESCRIPTORS if name in chosen)
        recipe = own.derived_as(descriptors, preset, settings.index_factory or own.index_factory)
        whiteners = find_whiteners(writer.layout, recipe, settings.whiteners)
        published = publish(writer.layout, writer.catalog, recipe, whiteners, anew=True)
        assert published is not None  # anew is always published
        return published


def compact(root: Address) -> Reclaimed:
    """Reclaim the space of what was removed: shards without gaps, one segment a descriptor, a smaller catalogue."""
    layout = Layout.at(root)
    with open_for_writing(root) as writer:
        before = _bytes(layout)
        compact_shards(writer)
        whiteners = find_whiteners(layout, writer.recipe)
        published = publish(layout, writer.catalog, writer.recipe, whiteners, merged=True) or Manifest.live(layout)
        assert published is not None  # the first is always published
    return Reclaimed(before, _bytes(layout), published.number)


def _bytes(layout: Layout) -> int:
    catalog = sum(path.stat().st_size for path in layout.root.glob("catalog.db*"))
    return layout.byte_count(layout.shards) + layout.byte_count(layout.segments) + catalog


def repair(
    root: Address,
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
    if Part.CATALOG in parts and not _catalogue_mended(Layout.at(root)):
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


def _catalogue_mended(layout: Layout) -> bool:
    """Make the catalogue's indexes anew and tell whether that was all that it lacked."""
    try:
        with Catalog.create(catalog_of(layout)) as catalog, catalog.alone():
            catalog.reindex()
            return not catalog.check()
    except CollectionCorrupt:
        return False
