"""Publish the current catalog as the next generation."""

from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import CollectionWriter


def publish_changes(writer: CollectionWriter) -> Manifest:
    """Publish the current catalog of an open collection with its own whiteners; return the live generation."""
    whiteners = find_whiteners(writer.layout, writer.recipe)
    return publish(writer.layout, writer.catalog, writer.recipe, whiteners).manifest
