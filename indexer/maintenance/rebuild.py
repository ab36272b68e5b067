"""Derive all vectors again from the shards, without images or network."""

from dataclasses import dataclass
from pathlib import Path

from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.features.names import DESCRIPTORS, find_composition


@dataclass(frozen=True)
class RebuildSettings:
    """How vectors are derived. None means the current value of the collection."""

    descriptors: tuple[str, ...] | None = None
    preset: str | None = None
    whiteners: Path | None = None  # a folder of whiteners to use instead of the current ones
    index_factory: str | None = None


def rebuild(root: CollectionAddress, settings: RebuildSettings | None = None) -> Manifest:
    """Publish a generation with all vectors derived again from the shards, without images or network.

    It upgrades a collection of an older version. Raises InvalidRequest if a descriptor needs data that the shards lack
    or the index factory cannot be trained, UnknownName, WhitenerUnavailable; then the old generation stays live.
    """
    settings = settings or RebuildSettings()
    with open_for_writing(root) as writer:
        own = writer.recipe
        preset = settings.preset or own.preset
        chosen = {find_composition(name, preset).name for name in settings.descriptors or own.descriptors}
        descriptors = tuple(name for name in DESCRIPTORS if name in chosen)
        recipe = own.derived_as(descriptors, preset, settings.index_factory or own.index_factory)
        whiteners = find_whiteners(writer.layout, recipe, settings.whiteners)
        return publish(writer.layout, writer.catalog, recipe, whiteners, from_scratch=True).manifest
