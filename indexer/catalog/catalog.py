"""The catalog: plain values in, frozen dataclasses out, one transaction per call."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from whatwhere.indexer.catalog.database import Backend, CatalogAddress
from whatwhere.indexer.catalog.filtering import FilterQueries
from whatwhere.indexer.catalog.integrity import IntegrityCheck
from whatwhere.indexer.catalog.metadata import MetadataTable
from whatwhere.indexer.catalog.ownership import OwnerTable
from whatwhere.indexer.catalog.queries import Queries
from whatwhere.indexer.catalog.relocation import RelocationTable
from whatwhere.indexer.catalog.removal import RemovalTable
from whatwhere.indexer.catalog.runs import RunTable
from whatwhere.indexer.catalog.schema import revision_of, revisions, upgrade
from whatwhere.indexer.catalog.shards import ShardTable
from whatwhere.indexer.catalog.skipped import SkippedTable
from whatwhere.indexer.catalog.sqlite import Sqlite
from whatwhere.indexer.catalog.transfer import RowTransfer
from whatwhere.indexer.errors import CollectionCorrupt, CollectionMismatch


class Catalog(
    Queries,
    FilterQueries,
    RunTable,
    MetadataTable,
    RemovalTable,
    RelocationTable,
    ShardTable,
    SkippedTable,
    OwnerTable,
    IntegrityCheck,
    RowTransfer,
):
    """A catalog in one database, SQLite or PostgreSQL. It is safe to use from several threads.

    The address of a PostgreSQL catalog is a URL, postgresql+psycopg://USER@HOST:5432/DATABASE, with libpq's options as
    query parameters. `?schema=NAME` names the schema that holds the tables (default "whatwhere"); it is created if it
    does not exist. Several collections can use one database, each with its own schema.

    Its methods come from mixins, one per topic and file. Composition would only add a name to each of some 400 calls:

    - `Queries`: images, shards and sources by id, content, URI or state
    - `FilterQueries`: ids by filter expression or URI pattern
    - `RunTable`: runs, their chunks and generations
    - `MetadataTable`: metadata of sources
    - `RemovalTable`: removed images, sources whose files no longer exist
    - `RelocationTable`: sources whose files were moved
    - `ShardTable`: moved and lost shards
    - `SkippedTable`: files and folders that a scan passed over
    - `OwnerTable`: the collection that the catalog belongs to
    - `IntegrityCheck`: the check, and repair of indexes
    - `RowTransfer`: rows for a copy to another database

    The contract of a mixin: it extends `Database` and uses only that class's `_asking`, `_reading`, `_writing`,
    `_outside_transaction` and `_backend`. It has no attributes and calls no method of another mixin; shared code
    is in functions. Every public method is one transaction and takes and returns plain values, dataclasses and arrays.

    A catalog that `expect`s an owner raises CollectionReplaced if it belongs to another collection meanwhile.

    Every method raises CollectionCorrupt if the database or a row that it reads is damaged, CollectionNotWritable if
    the database cannot be written, CollectionLocked if another process holds it for more than BUSY_TIMEOUT_S,
    CatalogUnavailable if the server does not answer, CatalogRefused if it refuses the login or a privilege.
    """

    @classmethod
    def create(cls, address: CatalogAddress, check: "Callable[[Catalog], None]" = lambda _: None) -> "Catalog":
        """Open a catalog for writing; create it or upgrade its schema if necessary.

        `check` is called before anything is changed, and raises an error to prevent it. Raises CollectionMismatch if a
        newer version of whatwhere made the schema.
        """
        with ExitStack() as on_error:
            catalog = on_error.enter_context(cls(backend_of(address)))
            check(catalog)
            if catalog._revision() != revisions()[-1]:
                catalog._migrate()
            on_error.pop_all()
        return catalog

    @classmethod
    def open(cls, address: CatalogAddress) -> "Catalog":
        """Open a catalog for reading.

        Raises CollectionMismatch if its schema is older or newer than this version's, CollectionCorrupt if it has none.
        """
        backend = backend_of(address)
        backend.require()
        with ExitStack() as on_error:
            catalog = on_error.enter_context(cls(backend, read_only=True))
            found = catalog._revision()
            place = address if isinstance(address, Path) else backend.name
            if found is None:
                raise CollectionCorrupt(
                    f"{place} is not a readable catalog, or its first run was stopped at once: run `whatwhere index` "
                    f"again; if it contained images, {backend.remedy}"
                )
            if found != revisions()[-1]:
                raise CollectionMismatch(
                    f"{place} has the older schema {found}: run `{backend.migrate}` once to upgrade it"
                )
            on_error.pop_all()
        return catalog

    def _revision(self) -> str | None:
        """Return the revision of the schema, None without one.

        Raises CollectionMismatch if it is newer than this version.
        """
        with self._asking() as connection:
            found = revision_of(connection)
            if found is None:
                self._backend.require_access(connection)
        if found is not None and found not in revisions():
            raise CollectionMismatch(f"the catalog has schema {found}, made by a newer whatwhere: upgrade whatwhere")
        return found

    def _migrate(self) -> None:
        backend = self._backend
        with backend.damage_named(), backend.writing(self._engine) as connection, connection.begin():
            backend.begun(connection)
            backend.prepare(connection)
            upgrade(connection)

    def __enter__(self) -> "Catalog":
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection."""
        self.close()


def backend_of(address: CatalogAddress) -> Backend:
    """Return the backend of an address: SQLite for a path, PostgreSQL for a URL."""
    if isinstance(address, Path):
        return Sqlite(address)
    from whatwhere.indexer.catalog.postgresql import PostgreSql  # noqa: PLC0415 - collections in files do not load psycopg

    return PostgreSql(address)
