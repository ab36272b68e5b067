"""Find a stored image by its URI, as results show it."""

from collections.abc import Iterable

from whatwhere.indexer.catalog.records import ImageRecord
from whatwhere.indexer.collection.reader import CollectionReader
from whatwhere.indexer.errors import ImageNotFound
from whatwhere.indexer.metadata.filter_translation import URI_FIELD
from whatwhere.indexer.metadata.filters import Comparison, Literal
from whatwhere.indexer.metadata.limits import MAX_LENGTH
from whatwhere.indexer.metadata.values import is_text
from whatwhere.indexer.sources.uris import scheme_of, shown


def name_of(collection: CollectionReader, text: str) -> str:
    """Return the name of the stored image at a URI in any spelling (see `storage.readable`); other texts unchanged.

    If the spelling fits several images, the one with exactly this URI is meant, else the first. Raises ImageNotFound.
    """
    if not scheme_of(text):
        return text
    records = _at(collection, text) if len(text) <= MAX_LENGTH and is_text(text) else []
    for record in sorted(records, key=lambda record: text not in record.uris):
        return f"images/{record.id}"
    raise ImageNotFound(
        f"no image of the collection is at {shown(text)[:200]!r}: ListImages (`whatwhere images`) lists all places",
        field="image",
    )


def _at(collection: CollectionReader, uri: str) -> Iterable[ImageRecord]:
    """Return the images at a URI in any spelling, by id."""
    ids = collection.catalog.ids_where(Comparison(URI_FIELD, "=", Literal(uri, quoted=True)))
    return collection.indexed_images(collection.live(ids).tolist()).values()
