"""Open a published generation read-only, with memory-mapped vectors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.database import REPLACED_RETRY_S
from whatwhere.indexer.catalog.records import INDEXED, ImageRecord
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import CollectionAddress, Current, Layout
from whatwhere.indexer.collection.manifest import Manifest, ids_sha256, read_ids, read_removed
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.shards import read_descriptions
from whatwhere.indexer.collection.stores import catalog_of, open_catalog
from whatwhere.indexer.collection.vector_stores import store_to_read
from whatwhere.indexer.collection.whiteners import stored_whiteners
from whatwhere.indexer.errors import (
    CollectionCorrupt,
    CollectionMismatch,
    CollectionNotFound,
    CollectionReplaced,
    DescriptorNotIndexed,
    ImageNotFound,
)
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.names import BEST_FIRST
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.indexer.storage.files import FileId, file_id
from whatwhere.indexer.vectors.arrays import Ids
from whatwhere.indexer.vectors.index import VectorIndex
from whatwhere.indexer.vectors.segment import Segment
from whatwhere.indexer.vectors.store import Generation, Index

_REPAIR = "run `whatwhere verify --repair`"


@dataclass(frozen=True)
class SearchableIndex:
    """The vectors of one descriptor, and the whiteners for the parts of a query."""

    descriptor: str
    vectors: Index
    whiteners: tuple[Whitener, ...]


@dataclass(frozen=True)
class Standing:
    """What is at an address: the live generation, and the directory and the SQLite file that it is in.

    It changes with each published generation, and if a directory takes the place of another one.
    """

    current: Current | None
    directory: FileId | None = None
    catalog: FileId | None = None

    @classmethod
    def at(cls, address: CollectionAddress) -> "Standing":
        """Look at an address. Raises CollectionCorrupt if CURRENT is damaged."""
        layout = Layout.at(address)
        if layout.objects is not None:
            return cls(layout.read_current())
        return cls(layout.read_current(), file_id(layout.root), file_id(layout.catalog))


@dataclass(frozen=True)
class CollectionReader:
    """One generation. It is safe to use from several threads.

    `address` and `standing` are what it was opened from. `ids` [N] (int64, sorted) are its images. `segments` are its
    open vector files by their SHA-256: the reader of the next generation reuses those that both have, and the catalog.
    """

    address: CollectionAddress
    standing: Standing
    identity: Identity
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
        """Close the catalog."""
        self.close()

    def close(self) -> None:
        """Close the catalog, also for readers that share it."""
        self.catalog.close()

    def index(self, descriptor: str | None = None) -> SearchableIndex:
        """Return a descriptor's index, by default the best one. Raises DescriptorNotIndexed if there is none."""
        try:
            return self.indexes[descriptor or next(name for name in BEST_FIRST if name in self.indexes)]
        except KeyError:
            raise DescriptorNotIndexed(
                f"the collection has no {descriptor} vectors, it has {', '.join(self.indexes)}: "
                "use one of these, or add it with `whatwhere rebuild --descriptors`",
                field="descriptor",
            ) from None

    def live(self, ids: Ids) -> Ids:
        """Return the subset of `ids` [N] (int64, sorted) that is in this generation."""
        return np.intersect1d(ids, self.ids, assume_unique=True)

    def indexed_image(self, image_id: int) -> ImageRecord:
        """Return an image of this generation. Raises ImageNotFound if none has this id."""
        record = self.catalog.image(image_id) if image_id in self else None
        if record is None or record.state != INDEXED:
            raise ImageNotFound(
                f"images/{image_id} is not in the collection: ListImages (`whatwhere images`) lists all names",
                field="image",
            )
        return record

    def indexed_images(self, ids: Iterable[int]) -> dict[int, ImageRecord]:
        """Return the records of these ids, in their order, without images that were removed meanwhile."""
        wanted = list(ids)
        records = self.catalog.images_by_id(wanted)
        found = (records[image_id] for image_id in wanted if image_id in records)
        return {record.id: record for record in found if record.state == INDEXED}

    def __contains__(self, image_id: int) -> bool:
        """Tell whether an image is in this generation."""
        place = np.searchsorted(self.ids, image_id)
        return bool(place < len(self.ids) and self.ids[place] == image_id)

    def description(self, image: ImageRecord) -> Description:
        """Read the stored description of an indexed image; this needs neither pixels nor a network."""
        try:
            return self._read(image)
        except CollectionCorrupt:
            # A compaction may have moved it since the record was read, and deleted the file.
            moved = self.catalog.image(image.id)
            if moved is None or (moved.shard_file, moved.shard_row) == (image.shard_file, image.shard_row):
                self._require_unreplaced()
                raise
            return self._read(moved)

    def _require_unreplaced(self) -> None:
        """Raise CollectionReplaced if another collection is in the place of this one, or none."""
        if Identity.of(self.layout) != self.identity or not self.layout.fetch(self.layout.recipe).exists():
            raise CollectionReplaced(
                "the collection was removed or replaced by another one: try again, when the server has opened it",
                retry_delay_s=REPLACED_RETRY_S,
            )

    def _read(self, image: ImageRecord) -> Description:
        if image.shard_file is None or image.shard_row is None:
            raise CollectionCorrupt(f"images/{image.id} is indexed but has no shard: run `whatwhere verify --repair`")
        path = self.layout.fetch(self.layout.shards / image.shard_file)
        try:
            return next(read_descriptions(path, [image.shard_row], self.identity))
        except CollectionCorrupt:
            if self.layout.objects is None:
                raise
            path = self.layout.fetch(path, refetch=True)
            return next(read_descriptions(path, [image.shard_row], self.identity))


def open_collection(address: CollectionAddress, previous: CollectionReader | None = None) -> CollectionReader:
    """Open the live generation of the collection at `address` and compare its vectors with their checksums.

    `previous` is a reader of an earlier generation, or of a collection that was at the same address: segments that both
    have are reused, and the catalog if it is the same. Raises CollectionNotFound, CollectionCorrupt, or
    CollectionMismatch if another version of whatwhere made the collection or its parts are of different collections.
    """
    layout = Layout.at(address)
    recipe = Recipe.load(layout)
    may_be_stale = True
    while True:
        standing = Standing.at(address)
        if standing.current is None:
            raise CollectionNotFound(
                f"{layout} has no published generation yet: run `whatwhere index` again to continue"
            )
        try:
            return _open(address, standing, recipe, previous)
        except CollectionCorrupt:
            if layout.read_current() == standing.current:
                # A run that was killed on this machine may have left another generation with this number in the cache.
                if not may_be_stale or not layout.drop_copies():
                    raise
                may_be_stale = False
            # Else newer generations were published meanwhile, and the files of this one deleted.


def _open(
    address: CollectionAddress, standing: Standing, recipe: Recipe, previous: CollectionReader | None
) -> CollectionReader:
    layout, current = Layout.at(address), standing.current
    assert current is not None
    folder = layout.fetch_folder(layout.generation(current.number))
    manifest = Manifest.load(folder, current.seal)
    identity = Identity.of(layout)
    manifest.require_of(identity, layout)
    if not manifest.recipe.describes_as(recipe):
        raise CollectionMismatch(f"generation {current.number} does not match the recipe in {layout.recipe}")
    if not manifest.has_vectors:
        raise CollectionMismatch(
            f"{layout} was made by an older version of whatwhere: run `whatwhere rebuild --collection {layout}` once "
            "to upgrade it; no image is described again"
        )
    store = store_to_read(layout, manifest, previous.segments if previous else {})
    generation = generation_of(folder, manifest)
    indexes = {
        name: SearchableIndex(name, store.open(entry.held, generation), stored_whiteners(layout, entry))
        for name, entry in manifest.indexes.items()
    }
    ids = next(iter(indexes.values())).vectors.ids
    if any(ids_sha256(index.vectors.ids) != manifest.ids_sha256 for index in indexes.values()):
        raise CollectionCorrupt(f"generation {current.number} does not have the images of its manifest: {_REPAIR}")
    shared = previous is not None and previous.identity == identity
    catalog = previous.catalog if previous and shared and previous.catalog.is_still_at(catalog_of(layout)) else None
    return CollectionReader(
        address,
        standing,
        identity,
        layout,
        manifest.recipe,
        manifest,
        catalog or open_catalog(layout),
        indexes,
        ids,
        _segments(manifest, indexes),
    )


def generation_of(folder: Path, manifest: Manifest) -> Generation:
    """Read the part of a generation that a vector store needs. Raises CollectionCorrupt if its folder is damaged."""
    removed = read_removed(folder, manifest.removed_sha256)
    return Generation(manifest.number, removed, read_ids(folder, manifest.ids_sha256) if manifest.is_remote else None)


def _segments(manifest: Manifest, indexes: Mapping[str, SearchableIndex]) -> dict[str, Segment]:
    """Return the open vector files by their SHA-256."""
    opened: dict[str, Segment] = {}
    for name, index in indexes.items():
        if isinstance(index.vectors, VectorIndex):
            hashes = (entry.sha256 for entry in manifest.indexes[name].segments)
            opened.update(zip(hashes, index.vectors.segments, strict=True))
    return opened
