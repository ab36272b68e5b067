"""The catalogue in a SQLite file: one writer, whom the directory's lock makes the only one, beside many readers."""

import os
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import QueuePool

from whatwhere.indexer.catalog import database
from whatwhere.indexer.catalog.database import Backend
from whatwhere.indexer.errors import CollectionCorrupt, CollectionLocked, CollectionNotWritable, WhatwhereError
from whatwhere.indexer.storage.files import FileVersion, version_of

_REMEDY = "run `whatwhere verify --repair`, or restore catalog.db from a backup"
_BEGIN = "whatwhere_begin"  # the option of a connection that says how its transactions begin


class Sqlite(Backend):
    """A catalogue in a SQLite file."""

    name = "catalog.db"
    remedy = _REMEDY

    def __init__(self, path: Path) -> None:
        self._path = path
        self.migrate = f"whatwhere rebuild --collection {path.parent}"

    def engine(self, *, read_only: bool) -> Engine:
        """Return an engine on the file."""
        return connect(self._path, read_only=read_only)

    def require(self) -> None:
        """Raise CollectionCorrupt without the file: SQLite would make it."""
        if not self._path.is_file():
            raise CollectionCorrupt(f"{self._path} is missing: restore it from a backup, or index into a new directory")

    def prepare(self, connection: Connection) -> None:
        """Do nothing: the file was made when it was opened."""

    def asking(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection; its transaction costs nothing here."""
        return engine.connect()

    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection: in WAL mode a transaction sees the state that it began with."""
        return engine.connect()

    def writing(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection that asks for the right to write at the beginning."""
        # A transaction that reads first and only then asks to write would fail beside another instead of waiting.
        return engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"}).connect()

    def outside_transaction(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection whose transactions are not begun."""
        return engine.connect().execution_options(**{_BEGIN: ""})

    def faults(self, connection: Connection, most: int) -> Generator[str]:
        """Yield what is wrong with pages and indexes."""
        for (said,) in connection.exec_driver_sql(f"PRAGMA integrity_check({most})"):
            if said != "ok":
                yield f"catalog.db: {said}"

    def orphans(self, connection: Connection) -> Iterator[tuple[str, int, str]]:
        """Yield (table, row id, target) of references to nothing."""
        for table, row, target, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            yield table, row, target

    def reindexing(self) -> list[str]:
        """Return the statement that makes all indexes anew."""
        return ["REINDEX"]

    def vacuuming(self) -> list[str]:
        """Return the statements that make the file, and its log, smaller."""
        return ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"]


def connect(path: Path, *, read_only: bool = False) -> Engine:
    """Return an engine on a SQLite file whose connections are set for one writer beside many readers."""

    def connection() -> sqlite3.Connection:
        unchanging = _unchanging(path) if read_only else None
        mode = "mode=rwc" if not read_only else "mode=ro" if unchanging is None else "mode=ro&immutable=1"
        made = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}",
            uri=True,
            factory=_Connection,
            timeout=database.BUSY_TIMEOUT_S,
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
            raise CollectionCorrupt(f"catalog.db is not a readable catalogue ({error}): {_REMEDY}") from error
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
        return CollectionCorrupt(f"catalog.db is not a readable catalogue ({error}): {_REMEDY}")
    if code.startswith(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return CollectionNotWritable(
            f"catalog.db cannot be written ({error}): make room on the disk or give the right to write to it and its "
            "directory, then run again; what was committed before is kept"
        )
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return CollectionLocked(
            f"another process holds catalog.db for more than {database.BUSY_TIMEOUT_S:.0f} s: wait for it to end, then "
            "run again"
        )
    return None
