"""Take images out of a collection, so that they stay out, and take that back."""

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
    """Which images: those that all parts that are given choose."""

    ids: Sequence[int] = ()
    uri_glob: str | None = None  # of a whole URI of any of the image's sources: * ? [seq]
    where: str | None = None  # a filter, as searches take it

    @property
    def is_empty(self) -> bool:
        """Tell whether no part is given."""
        return not self.ids and self.uri_glob is None and self.where is None


@dataclass(frozen=True)
class Chosen:
    """The images of a selection by id, and the first of them to show."""

    ids: list[int]
    first: list[ImageRecord]


@dataclass(frozen=True)
class Changed:
    """How many images went or came back, and the generation that is without or with them."""

    count: int
    generation: int


def choose(collection: CollectionAddress, selection: ImageSelection, *, removed: bool = False) -> Chosen:
    """Return the images to remove, or those `removed` ones to restore, and change nothing.

    Raises ImageNotFound for an id that is not in the catalogue, InvalidFilter, and the errors of opening a collection.
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
        raise ImageNotFound(f"{names} not in the collection: `whatwhere images` lists what there is", field="image")
    return np.unique(np.array(ids, dtype=np.int64))


def remove_images(collection: CollectionAddress, ids: Sequence[int]) -> Changed:
    """Take images out and publish the generation without them.

    Their content stays out, wherever it is found again, until it is restored. A process that is killed in between has
    removed them from the catalogue: whatever publishes next leaves them out.
    """
    with open_for_writing(collection) as writer:
        return _published(writer, writer.catalog.remove(ids) if ids else 0)


def restore_images(collection: CollectionAddress, ids: Sequence[int]) -> Changed:
    """Take a removal back and publish the generation with the images.

    Those whose descriptions were compacted away come back when a run finds their files again.
    """
    with open_for_writing(collection) as writer:
        return _published(writer, writer.catalog.restore(ids) if ids else 0)


def _published(writer: CollectionWriter, count: int) -> Changed:
    return Changed(count, publish_changes(writer).number)
