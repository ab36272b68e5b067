"""Which store has the vectors of a collection, and what the next generation changes there."""

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest, ids_sha256, read_facts, read_ids
from whatwhere.indexer.collection.pushdown import facts_of
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.segments import SegmentStore
from whatwhere.indexer.collection.stores import Stores
from whatwhere.indexer.errors import CollectionMismatch, InvalidRequest
from whatwhere.indexer.storage.files import write_text
from whatwhere.indexer.vectors.address import MilvusAddress
from whatwhere.indexer.vectors.arrays import Ids
from whatwhere.indexer.vectors.conditions import Facts
from whatwhere.indexer.vectors.names import AUTO
from whatwhere.indexer.vectors.segment import Segment
from whatwhere.indexer.vectors.store import VectorStore

_NOBODY: Ids = np.empty(0, dtype=np.int64)
_IMAGES_AT_ONCE = 1000


def store_to_write(layout: Layout, recipe: Recipe, *, anew: bool = False, merged: bool = False) -> VectorStore:
    """Return the store that the next generation's vectors go to; InvalidRequest where the recipe does not fit it."""
    address = Stores.of(layout).vectors
    if address is None:
        return SegmentStore(layout, recipe.index_factory, strict=anew, merged=merged)
    if recipe.index_factory != AUTO:
        raise InvalidRequest(
            f"index factory {recipe.index_factory!r} is one for files, and the vectors are in Milvus: leave it out, "
            "and give ?index=... in the address of the vectors",
            field="index_factory",
        )
    return _milvus(address, f"whatwhere_{_own_name(layout)}")


def store_to_read(layout: Layout, manifest: Manifest, lent: Mapping[str, Segment] | None = None) -> VectorStore:
    """Return the store that a generation's vectors are in; `lent` are segments that are open already."""
    if not manifest.is_remote:
        return SegmentStore(layout, lent=lent or {})
    address = Stores.of(layout).vectors
    if address is None:
        raise CollectionMismatch(
            f"{layout} has its vectors in Milvus, and {layout.stores.name} does not say where: write it there as "
            '"vectors": "milvus+http://HOST:19530", or bring them into files by `whatwhere rebuild`'
        )
    return _milvus(address)


def _milvus(address: str, prefix: str = "") -> VectorStore:
    """Return a Milvus; without a prefix it is for reading."""
    from whatwhere.indexer.vectors.milvus import MilvusServer, MilvusStore  # noqa: PLC0415 - few collections need it

    server = MilvusServer(MilvusAddress.parse(address), os.environ.get("MILVUS_TOKEN", ""))
    return MilvusStore(server, prefix)


def _own_name(layout: Layout) -> str:
    """Return a name that no other collection has, made up when it is first asked for.

    Several collections may share a Milvus, and those at the same path on two machines too.
    """
    path = layout.root / "vectors.id"
    try:
        return layout.fetch(path, anew=True).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        write_text(path, f"{secrets.token_hex(6)}\n")
        layout.keep(path)
        return _own_name(layout)


@dataclass(frozen=True)
class FactsKept:
    """The facts of images as the next generation keeps them: `digests` by id, `fit` whether no image has too many."""

    digests: Ids
    fit: bool

    @classmethod
    def of(cls, catalog: Catalog, ids: Ids) -> "FactsKept":
        """Read the facts of all these images once."""
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
        """Return the ids of an earlier generation in a store elsewhere, and those still there with other facts."""
        if previous is None or not previous.is_remote:
            return _NOBODY, _NOBODY
        folder = layout.fetch_folder(layout.generation(previous.number))
        known = read_ids(folder, previous.ids_sha256)
        before = read_facts(folder, previous.facts_sha256)
        both, here, there = np.intersect1d(ids, known, assume_unique=True, return_indices=True)
        return known, both[self.digests[here] != before[there]]


def facts_by_id(catalog: Catalog, ids: Ids) -> Iterator[Facts]:
    """Yield the facts of these images, in their order."""
    for some in batched(ids.tolist(), _IMAGES_AT_ONCE):
        records = catalog.images_by_id(some)
        for image_id in some:
            yield facts_of(records[image_id])
