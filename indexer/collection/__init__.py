"""The directory that holds a collection: shards, catalogue, generations, and the name of the live one."""

from indexer.collection.layout import FORMAT_VERSION, Layout, Recipe
from indexer.collection.manifest import Manifest
from indexer.collection.publish import publish
from indexer.collection.reader import CollectionReader, open_collection, stored_whiteners
from indexer.collection.shards import read_descriptions, write_shard
from indexer.collection.writer import CollectionWriter, open_for_writing

__all__ = [
    "FORMAT_VERSION",
    "CollectionReader",
    "CollectionWriter",
    "Layout",
    "Manifest",
    "Recipe",
    "open_collection",
    "open_for_writing",
    "publish",
    "read_descriptions",
    "stored_whiteners",
    "write_shard",
]
