"""Find a stored image by its URI, as results show it."""

from whatwhere.indexer.collection.reader import CollectionReader
from whatwhere.indexer.errors import ImageNotFound
from whatwhere.indexer.metadata.filter_translation import URI_FIELD
from whatwhere.indexer.metadata.filters import Comparison, Literal
from whatwhere.indexer.sources.uris import scheme_of, shown


def name_of(collection: CollectionReader, text: str) -> str:
    """Return the name of the stored image at a URI in any spelling (see `storage.readable`); other texts unchanged.

    If the spelling fits several images, the one with exactly this URI is meant, else the first. Raises ImageNotFound.
    """
    if not scheme_of(text):
        return text
    ids = collection.live(collection.catalog.ids_where(Comparison(URI_FIELD, "=", Literal(text, quoted=True))))
    records = collection.indexed_images(ids.tolist()).values()
    for record in sorted(records, key=lambda record: text not in record.uris):
        return f"images/{record.id}"
    raise ImageNotFound(
        f"no image of the collection is at {shown(text)[:200]!r}: ListImages (`whatwhere images`) lists all places",
        field="image",
    )
