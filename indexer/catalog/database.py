"""The database below the catalogue: connections and transactions, whichever kind of database it is."""

import importlib.resources
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeAlias

from alembic.config import Config
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

from whatwhere.indexer.errors import CollectionCorrupt

BUSY_TIMEOUT_S = 30.0  # how long a writer waits for another's transaction to end
CatalogAddress: TypeAlias = Path | str


def migration_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration, to run on `connection`."""
    config = Config()
    config.set_main_option("script_location", str(importlib.resources.files("whatwhere.migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


class Damage(Exception):
    """A fault of a row, met on the way; to a caller it is CollectionCorrupt, with the place and the remedy."""

    def __init__(self, row: str, fault: str) -> None:
        super().__init__(f"{row} {fault}")
        self.row = row
        self.fault = fault


class Backend(ABC):
    """A kind of database, and the one of it that a catalogue is in: all that is true of this kind only."""

    name: str  # in messages
    remedy: str  # what to do where it is damaged
    migrate: str  # the command that brings an older schema up to date

    @abstractmethod
    def engine(self, *, read_only: bool) -> Engine:
        """Return an engine whose errors have the names that ours have."""

    @abstractmethod
    def require(self) -> None:
        """Raise CollectionCorrupt where it can be told without a connection that nothing is there to be read."""

    def require_access(self, connection: Connection) -> None:  # noqa: B027 - not every kind has something to do
        """Raise CatalogRefused where nothing is found because it may not be looked at."""

    @abstractmethod
    def prepare(self, connection: Connection) -> None:
        """Make what the tables are made in, where it is not there."""

    @abstractmethod
    def asking(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection for one statement, which needs no transaction to see one state."""

    @abstractmethod
    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection that sees one state over several statements, and never waits for a writer."""

    @abstractmethod
    def writing(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection whose transaction may write."""

    @abstractmethod
    def outside_transaction(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection for statements that cannot stand in a transaction."""

    def begun(self, connection: Connection) -> None:  # noqa: B027 - not every kind has something to do
        """Take what keeps other writers away until the transaction that has just begun ends."""

    def new_image_id(self, session: Session) -> int | None:
        """Return the id that the next new image of this transaction gets, None where the database gives it."""
        return None

    def finish(self, session: Session) -> None:  # noqa: B027 - not every kind has something to do
        """Do what is left before a transaction is committed."""

    def loaded(self, connection: Connection, table: str) -> None:  # noqa: B027 - not every kind has something to do
        """Have new rows of a table numbered from where rows with ids of their own, just written, end."""

    def alone(self, engine: Engine) -> AbstractContextManager[None]:
        """Keep other writers away; CollectionLocked where one is at work."""
        return nullcontext()

    def not_being_written(self, engine: Engine) -> AbstractContextManager[None]:
        """Keep writers, but not readers, away; CollectionLocked where one is at work."""
        return nullcontext()

    @abstractmethod
    def faults(self, connection: Connection, most: int) -> Generator[str]:
        """Yield what the database itself finds wrong with how it is kept, about so many faults at most."""

    @abstractmethod
    def orphans(self, connection: Connection) -> Iterator[tuple[str, int, str]]:
        """Yield (table, row id, target) of rows that refer to a row that is not there."""

    def take_time(self, connection: Connection) -> None:  # noqa: B027 - not every kind has something to do
        """Let the statements of a transaction take as long as they need."""

    @abstractmethod
    def reindexing(self) -> list[str]:
        """Return the statements that make all indexes anew."""

    @abstractmethod
    def vacuuming(self) -> list[str]:
        """Return the statements that free the space of deleted rows."""

    @contextmanager
    def damage_named(self) -> Iterator[None]:
        """Raise CollectionCorrupt where a row is damaged, or a stored time or JSON text cannot be read as one."""
        try:
            yield
        except Damage as error:
            raise CollectionCorrupt(f"{error.row} of {self.name} {error.fault}: {self.remedy}") from error
        except (ValueError, TypeError) as error:
            raise CollectionCorrupt(
                f"{self.name} holds a value that cannot be read ({error}): {self.remedy}"
            ) from error


class Database:
    """One database, from which connections come. Safe to use from several threads."""

    def __init__(self, backend: Backend, *, read_only: bool = False) -> None:
        self._backend = backend
        self._engine = backend.engine(read_only=read_only)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only writer, in this process and all others; CollectionLocked, with who it is, where another is.

        PostgreSQL alone knows such a lock. It belongs to a connection, through which all writes go meanwhile: a writer
        that lost its connection, and with it the lock, can write no more (CatalogUnavailable).
        """
        with self._backend.alone(self._engine):
            yield

    @contextmanager
    def not_being_written(self) -> Iterator[None]:
        """Keep writers away, as `alone`, but not others that do the same."""
        with self._backend.not_being_written(self._engine):
            yield

    @contextmanager
    def _asking(self) -> Iterator[Connection]:
        """Give a connection for one statement; CollectionCorrupt for values that are none."""
        with self._backend.damage_named(), self._backend.asking(self._engine) as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database; CollectionCorrupt for values that are none."""
        with self._backend.damage_named(), self._backend.reading(self._engine) as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """Give a session whose changes are committed together at the end, or none of them."""
        with (
            self._backend.damage_named(),
            self._backend.writing(self._engine) as connection,
            Session(connection, autoflush=False) as session,
            session.begin(),
        ):
            self._backend.begun(session.connection())
            yield session
            self._backend.finish(session)

    def _outside_transaction(self, statements: list[str]) -> None:
        """Run statements that cannot stand in a transaction."""
        with self._backend.outside_transaction(self._engine) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
