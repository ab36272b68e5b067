"""Publish what the catalog holds as the next generation."""

from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import CollectionWriter, open_for_writing


def publish_collection(collection: CollectionAddress) -> Manifest:
    """Publish what the catalogue holds now as the next generation, unless the live one is just that, and return it.

    CollectionNotFound where there is none, CollectionLocked while another process writes.
    """
    with open_for_writing(collection) as writer:
        return publish_changes(writer)


def publish_changes(writer: CollectionWriter) -> Manifest:
    """Publish what the catalogue of an open collection holds now, through its own whiteners; return the live one."""
    whiteners = find_whiteners(writer.layout, writer.recipe)
    return publish(writer.layout, writer.catalog, writer.recipe, whiteners).manifest
