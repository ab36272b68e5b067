"""Open a published generation read-only, vectors memory-mapped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import INDEXED, ImageRecord
from whatwhere.indexer.collection.layout import CollectionAddress, Current, Layout
from whatwhere.indexer.collection.manifest import Manifest, ids_sha256, read_ids, read_removed
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.shards import read_descriptions
from whatwhere.indexer.collection.stores import open_catalog
from whatwhere.indexer.collection.vector_stores import store_to_read
from whatwhere.indexer.collection.whiteners import stored_whiteners
from whatwhere.indexer.errors import (
    CollectionCorrupt,
    CollectionMismatch,
    CollectionNotFound,
    DescriptorNotIndexed,
    ImageNotFound,
)
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.names import BEST_FIRST
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.indexer.vectors.arrays import Ids
from whatwhere.indexer.vectors.index import VectorIndex
from whatwhere.indexer.vectors.segment import Segment
from whatwhere.indexer.vectors.store import Generation, Index

_REPAIR = "run `whatwhere verify --repair`"


@dataclass(frozen=True)
class SearchableIndex:
    """One descriptor's vectors, and the whiteners that the parts of a query must pass through."""

    descriptor: str
    vectors: Index
    whiteners: tuple[Whitener, ...]


@dataclass(frozen=True)
class CollectionReader:
    """One generation. Safe to use from several threads.

    `ids` (sorted) are the images that can be found in it. `segments` are its files of vectors by their SHA-256: the
    reader of the next generation takes over those that it shares, and the catalogue.
    """

    layout: Layout
    recipe: Recipe
    manifest: Manifest
    catalog: Catalog
    indexes: dict[str, SearchableIndex]
    ids: Ids
    segments: Mapping[str, Segment]

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the catalogue."""
        self.close()

    def close(self) -> None:
        """Close the catalogue, also of the readers that share it."""
        self.catalog.close()

    def index(self, descriptor: str | None = None) -> SearchableIndex:
        """Return one descriptor's index, that of the best there is by default; DescriptorNotIndexed without one."""
        try:
            return self.indexes[descriptor or next(name for name in BEST_FIRST if name in self.indexes)]
        except KeyError:
            raise DescriptorNotIndexed(
                f"the collection has no {descriptor} vectors, it has {', '.join(self.indexes)}: "
                "ask for one of these, or make them with `whatwhere rebuild --descriptors`",
                field="descriptor",
            ) from None

    def live(self, ids: Ids) -> Ids:
        """Return those of `ids` (sorted) that can be found in this generation."""
        return np.intersect1d(ids, self.ids, assume_unique=True)

    def indexed_image(self, image_id: int) -> ImageRecord:
        """Return an image of this generation; ImageNotFound when there is none of this id."""
        record = self.catalog.image(image_id) if image_id in self else None
        if record is None or record.state != INDEXED:
            raise ImageNotFound(
                f"images/{image_id} is not in the collection: ListImages (`whatwhere images`) has the names there are",
                field="image",
            )
        return record

    def indexed_images(self, ids: Iterable[int]) -> dict[int, ImageRecord]:
        """Return the records of these ids, in their order, without those that were removed meanwhile."""
        wanted = list(ids)
        records = self.catalog.images_by_id(wanted)
        found = (records[image_id] for image_id in wanted if image_id in records)
        return {record.id: record for record in found if record.state == INDEXED}

    def __contains__(self, image_id: int) -> bool:
        """Tell whether an image can be found in this generation."""
        place = np.searchsorted(self.ids, image_id)
        return bool(place < len(self.ids) and self.ids[place] == image_id)

    def description(self, image: ImageRecord) -> Description:
        """Read the stored description of an indexed image: no pixels, no network."""
        try:
            return self._read(image)
        except CollectionCorrupt:
            # Compaction may have moved it since the record was read, and removed the file.
            moved = self.catalog.image(image.id)
            if moved is None or (moved.shard_file, moved.shard_row) == (image.shard_file, image.shard_row):
                raise
            return self._read(moved)

    def _read(self, image: ImageRecord) -> Description:
        if image.shard_file is None or image.shard_row is None:
            raise CollectionCorrupt(f"images/{image.id} is indexed but names no shard: run `whatwhere verify --repair`")
        path = self.layout.fetch(self.layout.shards / image.shard_file)
        try:
            return next(read_descriptions(path, [image.shard_row]))
        except CollectionCorrupt:
            if self.layout.objects is None:
                raise
            return next(read_descriptions(self.layout.fetch(path, anew=True), [image.shard_row]))


def open_collection(address: CollectionAddress, previous: CollectionReader | None = None) -> CollectionReader:
    """Open the live generation of the collection at `address`, every byte of its vectors compared with its checksum.

    `previous`, a reader of an earlier generation, lends its catalogue and the segments that both have. Raises
    CollectionNotFound, CollectionCorrupt, or CollectionMismatch (made by another version: newer or too old).
    """
    layout = Layout.at(address)
    recipe = Recipe.load(layout)
    may_be_stale = True
    while True:
        current = layout.read_current()
        if current is None:
            raise CollectionNotFound(
                f"{layout} has no published generation yet: run `whatwhere index` again, it continues where it stopped"
            )
        try:
            return _open(layout, recipe, current, previous)
        except CollectionCorrupt:
            if layout.read_current() == current:
                # A run that was killed here may have left another generation of this number in the cache.
                if not may_be_stale or not layout.drop_copies():
                    raise
                may_be_stale = False
            # Else newer generations were published meanwhile, and this one's files removed.


def _open(layout: Layout, recipe: Recipe, current: Current, previous: CollectionReader | None) -> CollectionReader:
    folder = layout.fetch_folder(layout.generation(current.number))
    manifest = Manifest.load(folder, current.seal)
    if not manifest.recipe.describes_as(recipe):
        raise CollectionMismatch(f"generation {current.number} was made by another recipe than {layout.recipe}")
    if not manifest.has_vectors:
        raise CollectionMismatch(
            f"{layout} was made by an older whatwhere: run `whatwhere rebuild --collection {layout}` once to "
            "bring it up to date; nothing is described again"
        )
    store = store_to_read(layout, manifest, previous.segments if previous else {})
    generation = generation_of(folder, manifest)
    indexes = {
        name: SearchableIndex(name, store.open(entry.held, generation), stored_whiteners(layout, entry))
        for name, entry in manifest.indexes.items()
    }
    ids = next(iter(indexes.values())).vectors.ids
    if any(ids_sha256(index.vectors.ids) != manifest.ids_sha256 for index in indexes.values()):
        raise CollectionCorrupt(f"generation {current.number} holds other images than its manifest says: {_REPAIR}")
    catalog = previous.catalog if previous else open_catalog(layout)
    return CollectionReader(layout, manifest.recipe, manifest, catalog, indexes, ids, _segments(manifest, indexes))


def generation_of(folder: Path, manifest: Manifest) -> Generation:
    """Return what a store must know of a generation, from its folder; CollectionCorrupt where that is damaged."""
    removed = read_removed(folder, manifest.removed_sha256)
    return Generation(manifest.number, removed, read_ids(folder, manifest.ids_sha256) if manifest.is_remote else None)


def _segments(manifest: Manifest, indexes: Mapping[str, SearchableIndex]) -> dict[str, Segment]:
    """Return the files that are open, by their SHA-256."""
    opened: dict[str, Segment] = {}
    for name, index in indexes.items():
        if isinstance(index.vectors, VectorIndex):
            hashes = (entry.sha256 for entry in manifest.indexes[name].segments)
            opened.update(zip(hashes, index.vectors.segments, strict=True))
    return opened
