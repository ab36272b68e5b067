"""Open a published generation read-only, vectors memory-mapped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from indexer import whitening
from indexer.catalog import INDEXED, Catalog, ImageRecord
from indexer.collection.layout import Layout, Recipe
from indexer.collection.manifest import Manifest
from indexer.collection.shards import read_descriptions
from indexer.describe import Description
from indexer.errors import (
    CollectionCorrupt,
    CollectionMismatch,
    CollectionNotFound,
    DescriptorNotIndexed,
    ImageNotFound,
)
from indexer.methods import BEST_FIRST
from indexer.vectors import VectorIndex
from indexer.whitening import Whitener


@dataclass(frozen=True)
class SearchableIndex:
    """One descriptor's vectors, and the whiteners that the parts of a query must pass through."""

    descriptor: str
    vectors: VectorIndex
    whiteners: tuple[Whitener, ...]


@dataclass(frozen=True)
class CollectionReader:
    """One generation. Safe to use from several threads."""

    layout: Layout
    recipe: Recipe
    manifest: Manifest
    catalog: Catalog
    indexes: dict[str, SearchableIndex]

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the catalogue."""
        self.close()

    def close(self) -> None:
        """Close the catalogue."""
        self.catalog.close()

    def index(self, descriptor: str | None = None) -> SearchableIndex:
        """Return one descriptor's index, that of the best there is by default; DescriptorNotIndexed without one."""
        try:
            return self.indexes[descriptor or next(name for name in BEST_FIRST if name in self.indexes)]
        except KeyError:
            raise DescriptorNotIndexed(
                f"the collection has no {descriptor} vectors, it has {', '.join(self.indexes)}: "
                "ask for one of these, or index into a new directory with --descriptors",
                field="descriptor",
            ) from None

    def indexed_image(self, image_id: int) -> ImageRecord:
        """Return an indexed image; ImageNotFound when there is none of this id."""
        record = self.catalog.image(image_id)
        if record is None or record.state != INDEXED:
            raise ImageNotFound(
                f"images/{image_id} is not in the collection: ListImages (`whatwhere images`) has the names there are",
                field="image",
            )
        return record

    def description(self, image: ImageRecord) -> Description:
        """Read the stored description of an indexed image: no pixels, no network."""
        if image.shard_file is None or image.shard_row is None:
            raise CollectionCorrupt(f"images/{image.id} is indexed but names no shard: restore the catalogue")
        return next(read_descriptions(self.layout.shards / image.shard_file, [image.shard_row]))


def open_collection(root: Path) -> CollectionReader:
    """Open the live generation of the collection at `root`.

    Raises CollectionNotFound, CollectionCorrupt, or CollectionMismatch (made by a newer version).
    """
    layout = Layout(root)
    recipe = Recipe.load(layout)
    number = layout.current_number()
    if number is None:
        raise CollectionNotFound(
            f"{root} has no published generation yet: run `whatwhere index` again, it continues where it stopped"
        )
    manifest = Manifest.load(layout.generation(number))
    if manifest.recipe != recipe:
        raise CollectionMismatch(f"generation {number} of {root} was made by another recipe than {layout.recipe}")
    indexes = {name: _open_index(layout, manifest, name) for name in manifest.indexes}
    return CollectionReader(layout, recipe, manifest, Catalog.open(layout.catalog), indexes)


def _open_index(layout: Layout, manifest: Manifest, name: str) -> SearchableIndex:
    entry = manifest.indexes[name]
    path = layout.generation(manifest.number) / entry.file_name
    return SearchableIndex(name, VectorIndex.map(path, entry.byte_count), stored_whiteners(layout, manifest, name))


def stored_whiteners(layout: Layout, manifest: Manifest, name: str) -> tuple[Whitener, ...]:
    """Return the whiteners that a generation's vectors went through; CollectionMismatch when one was exchanged."""
    return tuple(_stored_whitener(layout, fingerprint, name) for fingerprint in manifest.indexes[name].whiteners)


def _stored_whitener(layout: Layout, expected: str, name: str) -> Whitener:
    whitener = whitening.load(layout.whitener(expected))
    if whitener.fingerprint != expected:
        raise CollectionMismatch(
            f"whitener {expected[:12]}… of {name} holds other values than it was stored with: restore it"
        )
    return whitener
