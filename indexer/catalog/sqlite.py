"""The catalog in a SQLite file: one writer, by the lock of the collection's directory, and many readers."""

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Table, create_engine, event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import QueuePool

from whatwhere.indexer.catalog import database
from whatwhere.indexer.catalog.database import Backend, CatalogAddress
from whatwhere.indexer.errors import (
    CollectionCorrupt,
    CollectionLocked,
    CollectionNotWritable,
    CollectionReplaced,
    WhatwhereError,
)
from whatwhere.indexer.storage.files import FileId, FileVersion, file_id, version_of

_REMEDY = "run `whatwhere verify --repair`, or restore catalog.db from a backup"
# Errors of a reader that cannot create the log's files.
_WITHOUT_LOG = ("SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")
_BEGIN = "whatwhere_begin"  # connection option: the statement that begins its transactions


class Sqlite(Backend):
    """A catalog in a SQLite file."""

    name = "catalog.db"
    remedy = _REMEDY

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = file_id(path)
        self.migrate = f"whatwhere rebuild --collection {path.parent}"

    def engine(self, *, read_only: bool) -> Engine:
        """Return an engine on the file."""
        return connect(self._path, read_only=read_only, expected=self._file if read_only else None)

    def is_still_at(self, address: CatalogAddress) -> bool:
        """Tell whether the file has this path, and is the one that was there when this backend was created."""
        return self._path == address and self._file is not None and file_id(self._path) == self._file

    def require(self) -> None:
        """Raise CollectionCorrupt if the file is missing: SQLite would create it."""
        if not self._path.is_file():
            raise CollectionCorrupt(f"{self._path} is missing: restore it from a backup, or index into a new directory")

    def prepare(self, connection: Connection) -> None:
        """Do nothing: opening the file created it."""

    def asking(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection; a transaction costs nothing here."""
        return engine.connect()

    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection: in WAL mode a transaction sees the state at its beginning."""
        return engine.connect()

    def writing(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection whose transactions take the write lock when they begin."""
        # A transaction that reads first and takes the write lock later would fail beside another one instead of
        # waiting.
        return engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"}).connect()

    def outside_transaction(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection that begins no transactions."""
        return engine.connect().execution_options(**{_BEGIN: ""})

    def update_by_id(
        self, connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Set columns of many rows by the driver: SQLAlchemy's parameters would take longer than the updates."""
        dialect = connection.dialect
        processors = [table.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in names]
        for place, bind in enumerate(processors):
            if bind is not None and any(row[place] is not None for row in rows):
                rows = [(*row[:place], bind(row[place]), *row[place + 1 :]) for row in rows]
        values = list(map(tuple, rows))
        columns = ", ".join(f"{name} = ?" for name in names[:-1])
        connection.exec_driver_sql(f"UPDATE {table.name} SET {columns} WHERE id = ?", values)  # noqa: S608 - our names

    def faults(self, connection: Connection, most: int) -> Generator[str]:
        """Yield faults of pages and indexes."""
        for (said,) in connection.exec_driver_sql(f"PRAGMA integrity_check({most})"):
            if said != "ok":
                yield f"catalog.db: {said}"

    def orphans(self, connection: Connection) -> Iterator[tuple[str, int, str]]:
        """Yield (table, row id, target table) of dangling references."""
        for table, row, target, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            yield table, row, target

    def reindexing(self) -> list[str]:
        """Return the statement that rebuilds all indexes."""
        return ["REINDEX"]

    def vacuuming(self) -> list[str]:
        """Return the statements that shrink the file and its log."""
        return ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"]


def connect(path: Path, *, read_only: bool = False, expected: FileId | None = None) -> Engine:
    """Return an engine for a SQLite file, configured for one writer and many readers.

    New connections of an engine with an `expected` file raise CollectionReplaced if the path names another one.
    """

    def connection() -> sqlite3.Connection:
        _require_file(path, expected)
        made = _opened_to_read(path) if read_only else _opened(path, "mode=rwc")
        try:
            _require_file(path, expected)  # it may have been replaced meanwhile
            made.execute("PRAGMA foreign_keys=ON")
            if not read_only:
                # WAL: readers continue while the indexer writes. FULL: a committed chunk survives a power failure.
                made.execute("PRAGMA journal_mode=WAL")
                made.execute("PRAGMA synchronous=FULL")
        except UnicodeDecodeError as error:  # from the driver, for a message that quotes a damaged schema
            made.close()
            raise CollectionCorrupt(f"catalog.db is not a readable catalog ({error}): {_REMEDY}") from error
        except (sqlite3.Error, CollectionReplaced):
            made.close()
            raise
        return made

    engine = create_engine("sqlite://", creator=connection, poolclass=QueuePool)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "checkout", partial(_renew, path))
    event.listen(engine, "handle_error", _named)
    return engine


class _Connection(sqlite3.Connection):
    """A connection; `unchanging` is the version of a file that was opened as immutable."""

    unchanging: FileVersion | None = None


def _require_file(path: Path, expected: FileId | None) -> None:
    """Raise CollectionReplaced if the path names another file than the expected one, or none."""
    if expected is not None and file_id(path) != expected:
        raise CollectionReplaced(
            "the collection was removed or replaced by another one: try again, when the server has opened it",
            retry_delay_s=database.REPLACED_RETRY_S,
        )


def _opened(path: Path, mode: str) -> _Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        factory=_Connection,
        timeout=database.BUSY_TIMEOUT_S,
        check_same_thread=False,  # the pool hands a connection to one thread at a time
        isolation_level=None,  # SQLAlchemy begins transactions, also before DDL: see `_begin`
    )


def _require_readable(path: Path) -> None:
    """Raise CollectionNotWritable if this user may not read the file: SQLite's own error does not say so."""
    try:
        path.open("rb").close()
    except PermissionError as error:
        raise CollectionNotWritable(
            f"catalog.db cannot be read by this user ({error.strerror}): grant read permission for the collection"
        ) from error
    except FileNotFoundError:
        pass  # SQLite says so


def _opened_to_read(path: Path) -> _Connection:
    """Open a file to read it.

    Beside a database, a reader needs two further files (-wal, -shm), which it cannot create on a full or read-only disk
    or in another user's folder. Without a log (-wal) no process is writing, and the database alone is complete: it is
    then opened as a file that does not change, and `_renew` opens it again after a change.
    """
    _require_readable(path)
    made = _opened(path, "mode=ro")
    try:
        made.execute("PRAGMA schema_version").fetchone()  # reads the file; opening it does not
    except (sqlite3.Error, UnicodeDecodeError) as error:
        version = _unchanging(path)
        if version is None or not getattr(error, "sqlite_errorname", "").startswith(_WITHOUT_LOG):
            return made  # the first statement raises the error again, with its name
        made.close()
        made = _opened(path, "mode=ro&immutable=1")
        made.unchanging = version
    return made


def _unchanging(path: Path) -> FileVersion | None:
    """Return the version of a file without a log, None if it has one: a process writes it, or was killed."""
    log = Path(f"{path}-wal")
    if not path.exists() or (log.exists() and log.stat().st_size):
        return None
    return version_of(path.stat())


def _renew(path: Path, connection: _Connection, *_: object) -> None:
    """Reopen a connection if its file was changed after all: others may be able to write it."""
    if connection.unchanging is not None and connection.unchanging != _unchanging(path):
        raise DisconnectionError


def _begin(connection: Connection) -> None:
    # By default the driver commits before each CREATE TABLE, and a killed migration would stay incomplete.
    statement = connection.get_execution_options().get(_BEGIN, "BEGIN")
    if statement:
        connection.exec_driver_sql(statement)


def _named(context: ExceptionContext) -> WhatwhereError | None:
    """Return our error for an error of the database, None if it concerns a statement and not the file."""
    error = context.original_exception
    if not isinstance(error, sqlite3.Error | UnicodeDecodeError):
        return None
    code = getattr(error, "sqlite_errorname", "")
    # SQLITE_ERROR: our statements are correct, so if the database rejects one, its tables are not ours.
    damaged = ("SQLITE_ERROR", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ")
    undecodable = isinstance(error, UnicodeDecodeError) or str(error).startswith("Could not decode to UTF-8")
    if undecodable or code.startswith(damaged):
        return CollectionCorrupt(f"catalog.db is not a readable catalog ({error}): {_REMEDY}")
    if code.startswith(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return CollectionNotWritable(
            f"catalog.db cannot be written ({error}): free disk space or grant write permission for it and its "
            "directory, then run again; committed work is kept"
        )
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return CollectionLocked(
            f"another process has locked catalog.db for more than {database.BUSY_TIMEOUT_S:.0f} s: wait until it ends, "
            "then run again"
        )
    return None
