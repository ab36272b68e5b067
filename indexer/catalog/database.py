"""The database below the catalogue: connections, transactions, and its errors by the names that ours have."""

import importlib.resources
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from alembic.config import Config
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from indexer.errors import CollectionCorrupt, CollectionLocked, CollectionNotWritable, WhatwhereError
from indexer.files import FileVersion, version_of

BUSY_TIMEOUT_S = 30.0
REMEDY = "run `whatwhere verify --repair`, or restore catalog.db from a backup"
_BEGIN = "whatwhere_begin"  # the option of a connection that says how its transactions begin


def migration_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration, to run on `connection`."""
    config = Config()
    config.set_main_option("script_location", str(importlib.resources.files("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def connect(path: Path, *, read_only: bool = False) -> Engine:
    """Return an engine on a SQLite file whose connections are set for one writer beside many readers."""

    def connection() -> sqlite3.Connection:
        unchanging = _unchanging(path) if read_only else None
        mode = "mode=rwc" if not read_only else "mode=ro" if unchanging is None else "mode=ro&immutable=1"
        made = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}",
            uri=True,
            factory=_Connection,
            timeout=BUSY_TIMEOUT_S,
            check_same_thread=False,  # the pool hands a connection to one thread at a time
            isolation_level=None,  # transactions begin where SQLAlchemy says so, also before DDL: see below
        )
        made.unchanging = unchanging
        try:
            made.execute("PRAGMA foreign_keys=ON")
            if not read_only:
                # WAL: readers go on while the indexer writes. FULL: a committed chunk survives a power cut.
                made.execute("PRAGMA journal_mode=WAL")
                made.execute("PRAGMA synchronous=FULL")
        except UnicodeDecodeError as error:  # the driver's, of a message that quotes a damaged schema
            made.close()
            raise CollectionCorrupt(f"catalog.db is not a readable catalogue ({error}): {REMEDY}") from error
        except sqlite3.Error:
            made.close()
            raise
        return made

    engine = create_engine("sqlite://", creator=connection, poolclass=QueuePool)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "checkout", partial(_renew, path))
    event.listen(engine, "handle_error", _named)
    return engine


class _Connection(sqlite3.Connection):
    """A connection; `unchanging` is the state of a file that was taken for one that nobody writes to."""

    unchanging: FileVersion | None = None


def _unchanging(path: Path) -> FileVersion | None:
    """Return the state of a file that nobody can be writing to just now; None where somebody might.

    Beside a writer, a reader takes part in files that lie next to the database; a read-only disk may not have them.
    """
    if not path.exists() or not os.statvfs(path).f_flag & os.ST_RDONLY or Path(f"{path}-wal").exists():
        return None
    return version_of(path.stat())


def _renew(path: Path, connection: _Connection, *_: object) -> None:
    """Have a connection opened anew when its file was written to after all: it is read-only only from here."""
    if connection.unchanging is not None and connection.unchanging != _unchanging(path):
        raise DisconnectionError


def _begin(connection: Connection) -> None:
    # Left alone, the driver commits before each CREATE TABLE, and a migration that is killed stays half done.
    statement = connection.get_execution_options().get(_BEGIN, "BEGIN")
    if statement:
        connection.exec_driver_sql(statement)


def _named(context: ExceptionContext) -> WhatwhereError | None:
    """Return our error for one of the database's, None for those that speak of a statement and not of the file."""
    error = context.original_exception
    if not isinstance(error, sqlite3.Error | UnicodeDecodeError):
        return None
    code = getattr(error, "sqlite_errorname", "")
    # SQLITE_ERROR: our statements are right, so where the database finds one wrong, its tables are not ours.
    damaged = ("SQLITE_ERROR", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ")
    undecodable = isinstance(error, UnicodeDecodeError) or str(error).startswith("Could not decode to UTF-8")
    if undecodable or code.startswith(damaged):
        return CollectionCorrupt(f"catalog.db is not a readable catalogue ({error}): {REMEDY}")
    if code.startswith(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return CollectionNotWritable(
            f"catalog.db cannot be written ({error}): make room on the disk or give the right to write to it and its "
            "directory, then run again; what was committed before is kept"
        )
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return CollectionLocked(
            f"another process holds catalog.db for more than {BUSY_TIMEOUT_S:.0f} s: wait for it to end, then run again"
        )
    return None


class Database:
    """One database, from which sessions come. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database; CollectionCorrupt for values that are none."""
        with unreadable_values_named(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """Give a session whose changes are committed together at the end, or none of them."""
        # A transaction that reads first and only then asks to write would fail beside another instead of waiting.
        engine = self._engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        with unreadable_values_named(), Session(engine, autoflush=False) as session, session.begin():
            yield session

    def _outside_transaction(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement that cannot stand in a transaction and return its rows."""
        with self._engine.connect().execution_options(**{_BEGIN: ""}) as connection:
            result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []


@contextmanager
def unreadable_values_named() -> Iterator[None]:
    """Raise CollectionCorrupt where a stored time or JSON text cannot be read as one."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise CollectionCorrupt(f"catalog.db holds a value that cannot be read ({error}): {REMEDY}") from error
