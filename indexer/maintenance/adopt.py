"""Say that a directory is the only one of a collection, after it was moved or restored."""

from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.writer import open_for_writing


def adopt(collection: CollectionAddress) -> None:
    """Record that the stores of the collection belong to this directory or URI, wherever their collection was before.

    A directory that had them before is refused from then on. Raises CollectionMismatch if they belong to a collection
    with another id, and the errors of opening a collection for writing.
    """
    with open_for_writing(collection, adopting=True):
        pass
