"""Remove images from a collection permanently, and restore them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import FAILED, INDEXED, REMOVED, ImageRecord
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.stores import open_catalog
from whatwhere.indexer.collection.writer import CollectionWriter, open_for_writing
from whatwhere.indexer.errors import ImageNotFound
from whatwhere.indexer.metadata import filters
from whatwhere.indexer.pipeline.publishing import publish_changes

_SHOWN = 20


@dataclass(frozen=True)
class ImageSelection:
    """A selection of images: those that match all given parts."""

    ids: Sequence[int] = ()
    uri_glob: str | None = None  # matches a whole URI of any source of the image: * ? [seq]
    where: str | None = None  # a filter expression, as for searches

    @property
    def is_empty(self) -> bool:
        """Tell whether no part is given."""
        return not self.ids and self.uri_glob is None and self.where is None


@dataclass(frozen=True)
class Chosen:
    """The ids of a selection, and the records of the first ones, for display."""

    ids: list[int]
    first: list[ImageRecord]


@dataclass(frozen=True)
class Changed:
    """Number of images that were removed or restored, and the number of the live generation."""

    count: int
    generation: int


def choose(collection: CollectionAddress, selection: ImageSelection, *, removed: bool = False) -> Chosen:
    """Return the images to remove, or with `removed` those to restore; change nothing.

    Raises ImageNotFound if an id is not in the catalog, InvalidFilter, and the errors of opening a collection.
    """
    layout = Layout.at(collection)
    Recipe.load(layout)
    expression = None if selection.where is None else filters.parse(selection.where)
    states = (REMOVED,) if removed else (INDEXED, FAILED)
    with open_catalog(layout) as catalog:
        parts: list[NDArray[np.int64]] = []
        if selection.ids:
            parts.append(_known(catalog, selection.ids))
        if selection.uri_glob is not None:
            parts.append(_union([catalog.ids_of_uris(selection.uri_glob, state=state) for state in states]))
        if expression is not None:
            parts.append(_union([catalog.ids_where(expression, state=state) for state in states]))
        ids: list[int] = reduce(np.intersect1d, parts).tolist() if parts else []
        records = catalog.images_by_id(ids[:_SHOWN])
    return Chosen(ids, [records[identifier] for identifier in ids[:_SHOWN]])


def _union(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate(parts))


def _known(catalog: Catalog, ids: Sequence[int]) -> NDArray[np.int64]:
    unknown = sorted(set(ids) - catalog.images_by_id(ids).keys())
    if unknown:
        names = ", ".join(f"images/{identifier}" for identifier in unknown[:_SHOWN])
        raise ImageNotFound(f"{names} not in the collection: `whatwhere images` lists all images", field="image")
    return np.unique(np.array(ids, dtype=np.int64))


def remove_images(collection: CollectionAddress, ids: Sequence[int]) -> Changed:
    """Remove images and publish a generation without them.

    Their content stays removed, even if another run finds it, until it is restored. If the process is killed in
    between, they are removed from the catalog, and the next generation omits them. Raises the errors of opening a
    collection for writing.
    """
    with open_for_writing(collection) as writer:
        return _published(writer, writer.catalog.remove(ids) if ids else 0)


def restore_images(collection: CollectionAddress, ids: Sequence[int]) -> Changed:
    """Restore removed images and publish a generation with them.

    Images whose descriptions were deleted by a compaction return when a run finds their files again. Raises the errors
    of opening a collection for writing.
    """
    with open_for_writing(collection) as writer:
        return _published(writer, writer.catalog.restore(ids) if ids else 0)


def _published(writer: CollectionWriter, count: int) -> Changed:
    return Changed(count, publish_changes(writer).number)
