"""Publish the current catalog as the next generation."""

from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import CollectionWriter, open_for_writing


def publish_collection(collection: CollectionAddress) -> Manifest:
    """Publish the current catalog as the next generation, unless nothing changed; return the live generation.

    Raises CollectionNotFound, or CollectionLocked if another process writes to the collection.
    """
    with open_for_writing(collection) as writer:
        return publish_changes(writer)


def publish_changes(writer: CollectionWriter) -> Manifest:
    """Publish the current catalog of an open collection with its own whiteners; return the live generation."""
    whiteners = find_whiteners(writer.layout, writer.recipe)
    return publish(writer.layout, writer.catalog, writer.recipe, whiteners).manifest
