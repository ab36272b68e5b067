"""Connections and transactions, for both kinds of database."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import String, Table, column, select, table
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

from whatwhere.indexer.errors import CollectionCorrupt, CollectionReplaced

BUSY_TIMEOUT_S = 30.0  # how long a writer waits for another transaction to end
REPLACED_RETRY_S = 2.0  # for clients: a server looks for another collection every second
_OWNER = select(column("collection_id", String)).select_from(table("owner"))
CatalogAddress: TypeAlias = Path | str


class Damage(Exception):
    """A damaged row. Callers get CollectionCorrupt, with the place and the remedy."""

    def __init__(self, row: str, fault: str) -> None:
        super().__init__(f"{row} {fault}")
        self.row = row
        self.fault = fault


class Backend(ABC):
    """One database, and all that is specific to its kind."""

    name: str  # in messages
    remedy: str  # what to do if it is damaged
    migrate: str  # the command that upgrades an older schema

    @abstractmethod
    def engine(self, *, read_only: bool) -> Engine:
        """Return an engine that raises our errors."""

    @abstractmethod
    def require(self) -> None:
        """Raise CollectionCorrupt if the database is missing, as far as that is known without a connection."""

    @abstractmethod
    def is_still_at(self, address: CatalogAddress) -> bool:
        """Tell whether this address names the database of this backend, and not another one that replaced it."""

    def require_access(self, connection: Connection) -> None:  # noqa: B027 - not every kind has something to do
        """Raise CatalogRefused if the tables are invisible because a privilege is missing."""

    @abstractmethod
    def prepare(self, connection: Connection) -> None:
        """Create the schema for the tables if it is missing."""

    @abstractmethod
    def asking(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection for one statement, which sees one state without a transaction."""

    @abstractmethod
    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection that sees one state over several statements and never waits for a writer."""

    @abstractmethod
    def writing(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection whose transaction may write."""

    @abstractmethod
    def outside_transaction(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection for statements that cannot run in a transaction."""

    def begun(self, connection: Connection) -> None:  # noqa: B027 - not every kind has something to do
        """Take the writer's lock for the transaction that has just begun."""

    def new_image_id(self, session: Session) -> int | None:
        """Return the id of the next new image of this transaction, None if the database assigns it."""
        return None

    def finish(self, session: Session) -> None:  # noqa: B027 - not every kind has something to do
        """Complete a transaction that is about to be committed."""

    def loaded(self, connection: Connection, table: str) -> None:  # noqa: B027 - not every kind has something to do
        """Continue the numbering of a table after rows that were written with their ids."""

    @abstractmethod
    def update_by_id(
        self, connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Set columns of many rows, in few statements; the last of `names` is "id"."""

    def alone(self, engine: Engine) -> AbstractContextManager[None]:
        """Lock out other writers. Raises CollectionLocked if one is active."""
        return nullcontext()

    def not_being_written(self, engine: Engine) -> AbstractContextManager[None]:
        """Lock out writers, but not readers. Raises CollectionLocked if a writer is active."""
        return nullcontext()

    @abstractmethod
    def faults(self, connection: Connection, most: int) -> Generator[str]:
        """Yield the faults that the database finds in its own storage, about `most` of them at most."""

    @abstractmethod
    def orphans(self, connection: Connection) -> Iterator[tuple[str, int, str]]:
        """Yield (table, row id, target table) of rows that refer to a missing row."""

    def take_time(self, connection: Connection) -> None:  # noqa: B027 - not every kind has something to do
        """Remove the time limit for the statements of this transaction."""

    @abstractmethod
    def reindexing(self) -> list[str]:
        """Return the statements that rebuild all indexes."""

    @abstractmethod
    def vacuuming(self) -> list[str]:
        """Return the statements that free the space of deleted rows."""

    @contextmanager
    def damage_named(self) -> Iterator[None]:
        """Raise CollectionCorrupt if a row is damaged or a stored time or JSON text is invalid."""
        try:
            yield
        except Damage as error:
            raise CollectionCorrupt(f"{error.row} of {self.name} {error.fault}: {self.remedy}") from error
        except (ValueError, TypeError) as error:
            raise CollectionCorrupt(
                f"{self.name} contains a value that cannot be read ({error}): {self.remedy}"
            ) from error


class Database:
    """One database and its connections. It is safe to use from several threads."""

    def __init__(self, backend: Backend, *, read_only: bool = False) -> None:
        self._backend = backend
        self._engine = backend.engine(read_only=read_only)
        self._expected: str | None = None

    def expect(self, collection_id: str) -> None:
        """Raise CollectionReplaced from now on if the catalog belongs to another collection than this one.

        An open connection may see another one: a file may be replaced, and a schema dropped and created again.
        """
        self._expected = collection_id

    def is_still_at(self, address: CatalogAddress) -> bool:
        """Tell whether this address names the database that is open, and not another one that replaced it."""
        return self._backend.is_still_at(address)

    def _require_expected(self, connection: Connection) -> None:
        if self._expected is not None and connection.scalar(_OWNER) != self._expected:
            raise CollectionReplaced(
                "the catalog belongs to another collection now: try again, when the server has opened it",
                retry_delay_s=REPLACED_RETRY_S,
            )

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock out all other writers, in this process and others. Raises CollectionLocked, which names the holder.

        Only PostgreSQL has such a lock. It belongs to one connection, which all writes use meanwhile: a writer that
        lost its connection, and with it the lock, can no longer write (CatalogUnavailable).
        """
        with self._backend.alone(self._engine):
            yield

    @contextmanager
    def not_being_written(self) -> Iterator[None]:
        """Lock out writers as `alone` does, but share the lock with others that call this."""
        with self._backend.not_being_written(self._engine):
            yield

    @contextmanager
    def _asking(self) -> Iterator[Connection]:
        """Give a connection for one statement. Raises CollectionCorrupt for invalid values."""
        with self._backend.damage_named(), self._backend.asking(self._engine) as connection:
            self._require_expected(connection)
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database. Raises CollectionCorrupt for invalid values."""
        with self._backend.damage_named(), self._backend.reading(self._engine) as connection:
            self._require_expected(connection)
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """Give a session; its changes are committed together at the end, or not at all."""
        with (
            self._backend.damage_named(),
            self._backend.writing(self._engine) as connection,
            Session(connection, autoflush=False) as session,
            session.begin(),
        ):
            self._backend.begun(session.connection())
            self._require_expected(session.connection())
            yield session
            self._backend.finish(session)

    def _outside_transaction(self, statements: list[str]) -> None:
        """Run statements that cannot run in a transaction."""
        with self._backend.outside_transaction(self._engine) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
