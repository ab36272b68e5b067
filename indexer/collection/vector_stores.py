"""Choose the vector store of a collection, and determine what the next generation changes in it."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest, ids_sha256, read_facts, read_ids
from whatwhere.indexer.collection.pushdown import facts_of
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.segments import SegmentStore
from whatwhere.indexer.collection.stores import Stores
from whatwhere.indexer.errors import CollectionMismatch, InvalidRequest
from whatwhere.indexer.vectors.address import MilvusAddress
from whatwhere.indexer.vectors.arrays import Ids
from whatwhere.indexer.vectors.conditions import Facts
from whatwhere.indexer.vectors.names import AUTO
from whatwhere.indexer.vectors.segment import Segment
from whatwhere.indexer.vectors.store import VectorStore

_NO_IDS: Ids = np.empty(0, dtype=np.int64)
_IMAGES_AT_ONCE = 1000
_NAME_LENGTH = 16


def store_to_write(layout: Layout, recipe: Recipe, *, from_scratch: bool = False, merged: bool = False) -> VectorStore:
    """Return the store for the vectors of the next generation. Raises InvalidRequest if the recipe does not fit it."""
    address = Stores.of(layout).vectors
    if address is None:
        return SegmentStore(layout, recipe.index_factory, strict=from_scratch, merged=merged)
    if recipe.index_factory != AUTO:
        raise InvalidRequest(
            f"index factory {recipe.index_factory!r} is for files, but the vectors are in Milvus: omit it and set "
            "?index=... in the vectors' address",
            field="index_factory",
        )
    return _milvus(address, f"whatwhere_{_own_name(layout)}")


def store_to_read(layout: Layout, manifest: Manifest, lent: Mapping[str, Segment] | None = None) -> VectorStore:
    """Return the store with the vectors of a generation; `lent` are segments that are open already.

    Raises CollectionMismatch if they are in Milvus and its address is unknown.
    """
    if not manifest.is_remote:
        return SegmentStore(layout, lent=lent or {})
    address = Stores.of(layout).vectors
    if address is None:
        raise CollectionMismatch(
            f"{layout} has its vectors in Milvus, but {layout.stores.name} has no address: add "
            '"vectors": "milvus+http://HOST:19530" there, or move them to files with `whatwhere rebuild`'
        )
    return _milvus(address)


def _milvus(address: str, prefix: str = "") -> VectorStore:
    """Return a Milvus store, for reading only without a prefix."""
    from whatwhere.indexer.vectors.milvus import MilvusServer, MilvusStore  # noqa: PLC0415 - few collections need it

    server = MilvusServer(MilvusAddress.parse(address), os.environ.get("MILVUS_TOKEN", ""))
    return MilvusStore(server, prefix)


def _own_name(layout: Layout) -> str:
    """Return the unique name of a collection: the beginning of its id.

    Several collections may share a Milvus server, even with the same path on two machines. An older version gave the
    name a file of its own.
    """
    try:
        path = layout.root / "vectors.id"
        return layout.fetch(path, refetch=True).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return Identity.of(layout).id[:_NAME_LENGTH]


@dataclass(frozen=True)
class FactsKept:
    """Digests [N] of the facts of images, in the order of their ids; `fit` tells whether every image's facts fit."""

    digests: Ids
    fit: bool

    @classmethod
    def of(cls, catalog: Catalog, ids: Ids) -> "FactsKept":
        """Read the facts of all these images."""
        digests = np.empty(len(ids), dtype=np.int64)
        fit = True
        for place, facts in enumerate(facts_by_id(catalog, ids)):
            digests[place] = np.uint64(facts.digest).astype(np.int64)
            fit &= facts.fit
        return cls(digests, fit)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the digests."""
        return ids_sha256(self.digests)

    def altered(self, layout: Layout, previous: Manifest | None, ids: Ids) -> tuple[Ids, Ids]:
        """Return the ids of the previous generation in a remote store, and the ids in both whose facts changed."""
        if previous is None or not previous.is_remote:
            return _NO_IDS, _NO_IDS
        folder = layout.fetch_folder(layout.generation(previous.number))
        known = read_ids(folder, previous.ids_sha256)
        before = read_facts(folder, previous.facts_sha256)
        both, here, there = np.intersect1d(ids, known, assume_unique=True, return_indices=True)
        return known, both[self.digests[here] != before[there]]


def facts_by_id(catalog: Catalog, ids: Ids) -> Iterator[Facts]:
    """Yield the facts of these images in their order."""
    for some in batched(ids.tolist(), _IMAGES_AT_ONCE):
        records = catalog.images_by_id(some)
        for image_id in some:
            yield facts_of(records[image_id])
