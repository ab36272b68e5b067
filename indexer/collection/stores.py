"""The stores outside of a collection's own files that it is spread over: where its catalogue is, and its vectors."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.errors import CollectionCorrupt, CollectionMismatch, InvalidRequest
from whatwhere.indexer.storage.files import write_text
from whatwhere.indexer.vectors.address import MilvusAddress

_CATALOG_SCHEMES = ("postgresql", "postgresql+psycopg")
_VECTORS_SCHEMES = ("milvus+http", "milvus+https")


@dataclass(frozen=True)
class Stores:
    """Addresses, None for what is in files of the collection: a SQLite database, faiss's files.

    They stand in stores.json, which people may edit when a server moves. No password does: drivers take that from
    where they are used to (PGPASSWORD or ~/.pgpass, MILVUS_TOKEN). InvalidRequest for an address that is none.
    """

    catalog: str | None = None
    vectors: str | None = None

    def __post_init__(self) -> None:
        """Refuse what can be no address."""
        _check("catalog", self.catalog, _CATALOG_SCHEMES, "postgresql+psycopg://USER@HOST/DATABASE")
        _check("vectors", self.vectors, _VECTORS_SCHEMES, "milvus+http://HOST:19530")
        if self.vectors is not None:
            MilvusAddress.parse(self.vectors)

    @classmethod
    def of(cls, layout: Layout) -> Self:
        """Return the stores of a collection; of one that is not there yet those that it has by default."""
        path = layout.fetch(layout.stores, anew=True)
        try:
            values = json.loads(path.read_bytes())
            return cls(**values)
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError, InvalidRequest) as error:
            raise CollectionCorrupt(f"{layout}/{path.name} names no stores ({error}): write it again") from error

    def save(self, layout: Layout) -> None:
        """Write the stores of a new collection; nothing where all is in its own files."""
        if self != Stores():
            values = {name: address for name, address in asdict(self).items() if address is not None}
            write_text(layout.stores, json.dumps(values, indent=2) + "\n")
            layout.keep(layout.stores)

    def settled(self, layout: Layout, *, is_new: bool) -> "Stores":
        """Return the stores to use where these are asked for: a collection's own, or these for a new one."""
        if is_new:
            if layout.objects is not None and self.catalog is None:
                raise InvalidRequest(
                    f"{layout} is in an object store, which holds no SQLite database: give the address of a "
                    "PostgreSQL database by --catalog postgresql+psycopg://USER@HOST/DATABASE",
                    field="catalog",
                )
            return self
        own = Stores.of(layout)
        for name, asked in asdict(self).items():
            if asked not in (None, getattr(own, name)):
                raise CollectionMismatch(
                    f"{layout} has its {name} at {getattr(own, name) or 'home, in its own files'}, not at {asked}: "
                    f"leave --{name} out, edit {layout.stores.name} where a server has moved, or move the collection "
                    "with `whatwhere copy`"
                )
        return own


def open_catalog(layout: Layout) -> Catalog:
    """Open a collection's catalogue for reading, wherever it is; raises as `Catalog.open`."""
    return Catalog.open(catalog_of(layout))


def catalog_of(layout: Layout) -> Path | str:
    """Return the address of a collection's catalogue: a file of its own, or a database's URL."""
    return Stores.of(layout).catalog or layout.catalog


def _check(name: str, address: str | None, schemes: tuple[str, ...], example: str) -> None:
    if address is None:
        return
    try:
        parts = urlsplit(address)
        password, host = parts.password, parts.hostname
        _ = parts.port
    except ValueError as error:
        raise InvalidRequest(f"{name} {address!r} is no address ({error}): give {example}", field=name) from error
    if password is not None:
        raise InvalidRequest(
            f"the address of the {name} at {host} has a password in it, and would be kept as it is: give it without, "
            "and the password by PGPASSWORD, ~/.pgpass or MILVUS_TOKEN",
            field=name,
        )
    if parts.scheme not in schemes:
        raise InvalidRequest(f"{name} {address!r} is no address of one that is known: give {example}", field=name)
