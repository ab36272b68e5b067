"""The external stores of a collection: addresses of the databases with its catalog and its vectors."""

import json
import logging
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.errors import CollectionCorrupt, CollectionMismatch, InvalidRequest
from whatwhere.indexer.storage.files import write_text
from whatwhere.indexer.storage.mounts import network_kind
from whatwhere.indexer.vectors.address import MilvusAddress

_CATALOG_SCHEMES = ("postgresql", "postgresql+psycopg")
_VECTORS_SCHEMES = ("milvus+http", "milvus+https")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stores:
    """Addresses of external stores; None means files of the collection (SQLite, faiss).

    They are stored in stores.json, which users may edit if a server moves. Passwords are not stored: drivers read them
    from PGPASSWORD, ~/.pgpass or MILVUS_TOKEN. Raises InvalidRequest if an address is invalid.
    """

    catalog: str | None = None
    vectors: str | None = None

    def __post_init__(self) -> None:
        """Raise InvalidRequest if an address is invalid."""
        _check("catalog", self.catalog, _CATALOG_SCHEMES, "postgresql+psycopg://USER@HOST/DATABASE")
        _check("vectors", self.vectors, _VECTORS_SCHEMES, "milvus+http://HOST:19530")
        if self.vectors is not None:
            MilvusAddress.parse(self.vectors)

    @classmethod
    def of(cls, layout: Layout) -> Self:
        """Return the stores of a collection, the defaults for one that does not exist yet."""
        path = layout.fetch(layout.stores, refetch=True)
        try:
            values = json.loads(path.read_bytes())
            return cls(**values)
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError, InvalidRequest) as error:
            raise CollectionCorrupt(f"{layout}/{path.name} is invalid ({error}): correct it") from error

    def save(self, layout: Layout) -> None:
        """Write the stores of a new collection, unless everything is in its own files."""
        if self != Stores():
            values = {name: address for name, address in asdict(self).items() if address is not None}
            write_text(layout.stores, json.dumps(values, indent=2) + "\n")
            layout.keep(layout.stores)

    def settled(self, layout: Layout, *, is_new: bool) -> "Stores":
        """Return the stores to use: these for a new collection, else the collection's own.

        Raises CollectionMismatch if these differ from the collection's own, InvalidRequest if a new collection in an
        object store has no catalog address.
        """
        if is_new:
            if layout.objects is not None and self.catalog is None:
                raise InvalidRequest(
                    f"{layout} is in an object store, which cannot contain a SQLite database: give a PostgreSQL "
                    "database with --catalog postgresql+psycopg://USER@HOST/DATABASE",
                    field="catalog",
                )
            return self
        own = Stores.of(layout)
        for name, asked in asdict(self).items():
            if asked not in (None, getattr(own, name)):
                raise CollectionMismatch(
                    f"{layout} has its {name} at {getattr(own, name) or 'home, in its own files'}, not at {asked}: "
                    f"omit --{name}, edit {layout.stores.name} if a server has moved, or move the collection with "
                    "`whatwhere copy`"
                )
        return own


def open_catalog(layout: Layout) -> Catalog:
    """Open a collection's catalog for reading.

    Raises the errors of `Catalog.open`, and CollectionMismatch if it belongs to another collection.
    """
    address = catalog_of(layout)
    identity = Identity.of(layout)
    with ExitStack() as on_error:
        catalog = on_error.enter_context(Catalog.open(address))
        owner = catalog.owner()
        if owner is not None:
            if owner.collection_id != identity.id:
                raise CollectionMismatch(
                    f"the catalog at {address} does not belong to {layout} but to the collection of {owner.home}: "
                    f"restore the catalog of {layout}, or correct {layout.stores.name}"
                )
            catalog.expect(owner.collection_id)
        on_error.pop_all()
    return catalog


def warn_of_network(layout: Layout) -> None:
    """Log a warning if the catalog is a SQLite file on a network mount."""
    address = catalog_of(layout)
    if isinstance(address, Path) and (kind := network_kind(layout.root)) is not None:
        log.warning(
            "%s is on a network file system (%s), where SQLite works for one machine at a time: do not index on one "
            "machine and serve on another; for that, keep the catalog in PostgreSQL (`whatwhere copy --catalog`)",
            address,
            kind,
        )


def catalog_of(layout: Layout) -> Path | str:
    """Return the address of a collection's catalog: the path of its SQLite file or the URL of a database."""
    return Stores.of(layout).catalog or layout.catalog


def _check(name: str, address: str | None, schemes: tuple[str, ...], example: str) -> None:
    if address is None:
        return
    try:
        parts = urlsplit(address)
        password, host = parts.password, parts.hostname
        _ = parts.port
    except ValueError as error:
        raise InvalidRequest(
            f"{name} {address!r} is not a valid address ({error}): give {example}", field=name
        ) from error
    if password is not None:
        raise InvalidRequest(
            f"the address of the {name} at {host} contains a password, which would be stored in plain text: remove it "
            "and use PGPASSWORD, ~/.pgpass or MILVUS_TOKEN",
            field=name,
        )
    if parts.scheme not in schemes:
        raise InvalidRequest(f"{name} {address!r} is not the address of a supported store: give {example}", field=name)
