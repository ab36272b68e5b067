"""The directory that holds a collection: shards, catalogue, generations, and the name of the live one."""

from indexer.collection.layout import Address, Layout
from indexer.collection.manifest import Manifest
from indexer.collection.publish import publish
from indexer.collection.reader import CollectionReader, open_collection
from indexer.collection.recipe import Recipe
from indexer.collection.sealed import FORMAT_VERSION
from indexer.collection.shards import read_descriptions, write_shard
from indexer.collection.stores import Stores, catalog_of, open_catalog
from indexer.collection.whiteners import find_sound_whiteners, find_whiteners
from indexer.collection.writer import (
    CollectionWriter,
    current_recipe,
    not_being_written,
    open_for_repair,
    open_for_writing,
    write_shard_file,
)

__all__ = [
    "FORMAT_VERSION",
    "Address",
    "CollectionReader",
    "CollectionWriter",
    "Layout",
    "Manifest",
    "Recipe",
    "Stores",
    "catalog_of",
    "current_recipe",
    "find_sound_whiteners",
    "find_whiteners",
    "not_being_written",
    "open_catalog",
    "open_collection",
    "open_for_repair",
    "open_for_writing",
    "publish",
    "read_descriptions",
    "write_shard",
    "write_shard_file",
]
