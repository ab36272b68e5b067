"""Refuse a catalog that belongs to another collection, and stores that a copy of the directory would share."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import Owner
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.stores import Stores
from whatwhere.indexer.errors import CollectionMismatch
from whatwhere.indexer.storage.files import file_id


@dataclass(frozen=True)
class Home:
    """Where a collection is: its directory and the machine's name, or its URI.

    `mark` has the inodes of the directory and of collection.json: they stay when the directory is renamed or mounted
    elsewhere, and differ in a copy. An object store has none.
    """

    machine: str
    place: str
    mark: str

    @classmethod
    def of(cls, layout: Layout) -> "Home":
        """Return the home of a collection."""
        if layout.objects is not None:
            return cls("", layout.objects.address, "")
        place = os.fsencode(layout.root.absolute()).decode(errors="replace")
        inodes = [found[1] for path in (layout.root, layout.recipe) if (found := file_id(path)) is not None]
        return cls(socket.gethostname(), place, ":".join(map(str, inodes)))

    @classmethod
    def parse(cls, text: str, mark: str) -> "Home":
        """Return the home that `str` and `mark` describe."""
        place, separator, machine = text.rpartition(" on ")
        return cls(machine, place, mark) if separator else cls("", text, mark)

    def __str__(self) -> str:
        """Return the place for messages."""
        return f"{self.place} on {self.machine}" if self.machine else self.place


def require_own(layout: Layout, catalog: Catalog, stores: Stores, *, adopting: bool = False) -> None:
    """Raise CollectionMismatch if the catalog is another collection's, or if this directory is a copy of its owner's.

    A copy of the directory may have its own files alone: what another database holds would be written by both.
    `adopting` accepts the directory as the owner's, wherever the owner was.
    """
    identity = Identity.of(layout)
    owner = catalog.owner()
    if owner is None:
        if stores.catalog is not None and not _fits(layout, catalog):
            raise CollectionMismatch(
                f"the catalog at {stores.catalog} holds the images of another collection than {layout}: {_OWN_CATALOG}"
            )
        return
    if owner.collection_id != identity.id and (identity.id or not _fits(layout, catalog)):
        raise CollectionMismatch(
            f"the catalog at {stores.catalog or layout.catalog} belongs to another collection than {layout}: to that "
            f"of {owner.home}: {_OWN_CATALOG if stores.catalog else 'restore the catalog of this one'}"
        )
    if (stores.catalog or stores.vectors) and not adopting:
        _require_home(layout, stores, owner)


_OWN_CATALOG = "give each collection a schema of its own with --catalog …?schema=NAME, or restore its directory"


def claim(layout: Layout, catalog: Catalog) -> None:
    """Record in the catalog that it belongs to the collection, and where that is."""
    home = Home.of(layout)
    identity = Identity.of(layout)
    catalog.claim(Owner(identity.id, str(home), home.mark))
    catalog.expect(identity.id)


def _require_home(layout: Layout, stores: Stores, owner: Owner) -> None:
    """Raise CollectionMismatch if the owner is, or may be, in another directory: this one is a copy then."""
    home, here = Home.parse(owner.home, owner.home_mark), Home.of(layout)
    if (home.mark and home.mark == here.mark) or (home.machine, home.place) == (here.machine, here.place):
        return
    shared = " and ".join(address for address in (stores.catalog, stores.vectors) if address)
    if home.machine == here.machine and layout.objects is None:
        if Identity.of(Layout(Path(home.place))).id == owner.collection_id:
            raise CollectionMismatch(
                f"{layout} is a copy of {home.place}, and both use {shared}: remove {layout}, and copy with "
                f"`whatwhere copy {home.place} {layout}`, which gives the copy stores of its own"
            )
        return  # it was moved: nothing is there any more
    raise CollectionMismatch(
        f"{layout} uses {shared}, which belongs to {home}: if it was moved or restored from there, run `whatwhere "
        f"adopt --collection {layout}` once; if it is a copy, remove it and use `whatwhere copy`"
    )


def _fits(layout: Layout, catalog: Catalog) -> bool:
    """Tell whether a catalog without an owner can be that of these files: it is new, or one of its shards is here."""
    recorded = catalog.shard_sizes()
    if not recorded:
        return not catalog.has_images() or layout.fetch(layout.recipe).exists()
    here: Mapping[str, int] = layout.sizes(layout.shards)
    return any(here.get(name) == byte_count for name, byte_count in recorded.items())
