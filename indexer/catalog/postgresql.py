"""The catalog in a PostgreSQL database: an advisory lock admits one writer."""

import hashlib
import select
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol, runtime_checkable

from sqlalchemy import ColumnElement, Table, bindparam, cast, create_engine, event, func, text, update
from sqlalchemy import column as column_
from sqlalchemy import select as select_
from sqlalchemy import table as table_
from sqlalchemy.dialects.postgresql import ARRAY, OID, REGCLASS
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.orm import Session

from whatwhere.indexer.catalog import database
from whatwhere.indexer.catalog.database import Backend, CatalogAddress
from whatwhere.indexer.catalog.postgresql_url import PostgresqlUrl
from whatwhere.indexer.catalog.tables import Base, GenerationRow
from whatwhere.indexer.errors import (
    CatalogRefused,
    CatalogUnavailable,
    CollectionCorrupt,
    CollectionLocked,
    CollectionNotWritable,
    InvalidRequest,
    WhatwhereError,
)

_LAST_ID = "last_image_id"  # session key: the highest id that its transaction has assigned
_LAST_GIVEN = text("SELECT last_value - (NOT is_called)::integer FROM images_id_seq")
_HOLDERS = text(
    "SELECT activity.pid, activity.application_name, host(activity.client_addr) "
    "FROM pg_locks AS held JOIN pg_stat_activity AS activity USING (pid) "
    "WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1 AND held.pid <> pg_backend_pid() "
    "AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (held.classid::bigint << 32 | held.objid::bigint) = :key"
)
_UNUSABLE_INDEXES = text(
    "SELECT class.relname FROM pg_index JOIN pg_class AS class ON class.oid = pg_index.indexrelid "
    "WHERE class.relnamespace = current_schema()::regnamespace AND NOT (indisvalid AND indisready)"
)
# Messages of libpq if a server refuses a connection; it gives no error code.
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "not permitted to log in",
    "permission denied",
    "ssl",
    "certificate",
    "invalid connection option",
    "not currently accepting connections",
)


@runtime_checkable
class _WithCode(Protocol):
    """An error of psycopg's, which is imported where there is a PostgreSQL alone."""

    sqlstate: str | None


class PostgreSql(Backend):
    """A catalog in a schema of a PostgreSQL database.

    The writer's lock is an advisory lock with a key from the schema's name, so that each collection of a database has
    its own. `alone` holds it with one connection, which all writes use then; a write outside of `alone` takes it for
    its transaction. Image ids are assigned in the order of recording and never reused. A failed transaction uses no
    ids, unless the commit itself fails.
    """

    migrate = "whatwhere rebuild --collection COLLECTION"

    def __init__(self, address: str) -> None:
        self._place = PostgresqlUrl.of(address)
        self.name = f"the catalog at {self._place.shown}"
        self.remedy = f"restore the schema {self._place.schema} from a backup (pg_restore), or the whole database"
        digest = hashlib.sha256(f"whatwhere {self._place.schema}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        self._holder: Connection | None = None  # the connection that holds the lock; writes use it in turn
        self._turn = threading.Lock()

    def engine(self, *, read_only: bool) -> Engine:
        """Return an engine, which connects when necessary. Raises InvalidRequest if psycopg is not installed."""
        try:
            # Most queries are one statement, which sees one state anyway: without a transaction they take one round
            # trip to the server instead of three.
            engine = create_engine(
                self._place.url,
                isolation_level="AUTOCOMMIT",
                connect_args=self._place.connect_arguments(read_only, database.BUSY_TIMEOUT_S),
                hide_parameters=True,
            )
        except ImportError as error:
            raise InvalidRequest(
                f"{self.name} needs psycopg, which is not installed ({error}): pip install 'whatwhere[postgresql]'",
                field="catalog",
            ) from error
        event.listen(engine, "checkout", _renew)
        event.listen(engine, "handle_error", self._named)
        return engine

    def is_still_at(self, address: CatalogAddress) -> bool:
        """Tell whether the address is the same; only the rows tell whether the tables are."""
        return isinstance(address, str) and PostgresqlUrl.of(address) == self._place

    def require(self) -> None:
        """Do nothing: only the server knows whether the tables exist."""

    def require_access(self, connection: Connection) -> None:
        """Raise CatalogRefused if the schema exists and this role may not use it."""
        found = func.to_regnamespace(self._place.schema)
        if connection.scalar(select_(~func.has_schema_privilege(cast(found, OID), "USAGE"))):
            raise self._refused(f"permission denied for schema {self._place.schema}")

    def prepare(self, connection: Connection) -> None:
        """Create the schema. Raises CatalogRefused if the encoding of the database is not UTF8."""
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise CatalogRefused(f"{self.name} is in a database with the encoding {encoding}: create one with UTF8")
        # Not IF NOT EXISTS, which needs the privilege to create schemas even if the schema exists.
        if not connection.scalar(select_(func.to_regnamespace(self._place.schema).is_not(None))):
            connection.exec_driver_sql(f"CREATE SCHEMA {self._place.schema}")

    def asking(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection without a transaction."""
        return engine.connect()

    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection whose transaction sees the state of its first statement until it ends."""
        # Not SERIALIZABLE: chunks are committed whole, so a reader always sees a state that existed.
        return engine.connect().execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """Give the connection that holds the lock, one thread at a time, or one that takes it when it begins."""
        # READ COMMITTED is enough with the lock, because no one else writes. It is necessary while waiting for the
        # lock: a snapshot from before the wait would not contain the other writer's changes.
        if self._holder is None:
            with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
                yield connection
            return
        with self._turn:
            yield self._required(self._holder)

    def _required(self, holder: Connection) -> Connection:
        """Return the connection that holds the lock.

        Raises CatalogUnavailable if it, and with it the lock, was lost.
        """
        if holder.closed or holder.invalidated:  # SQLAlchemy would continue with a new connection without the lock
            raise CatalogUnavailable(
                f"{self.name}: the connection was lost, and with it the writer's lock: run again to continue"
            )
        return holder

    @contextmanager
    def outside_transaction(self, engine: Engine) -> Iterator[Connection]:
        """Give a connection that commits each statement: the one that holds the lock if there is one."""
        if self._holder is None:
            with engine.connect() as connection:
                yield connection
            return
        with self._turn:
            connection = self._required(self._holder)
            yield connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.commit()
            connection.execution_options(isolation_level="READ COMMITTED")

    def begun(self, connection: Connection) -> None:
        """Take the writer's lock until the transaction ends, unless the connection holds it already."""
        if self._holder is not None or connection.scalar(select_(func.pg_try_advisory_xact_lock(self._key))):
            return
        locked = self._locked(connection)
        try:
            connection.execute(select_(func.pg_advisory_xact_lock(self._key)))
        except CollectionLocked as error:  # after BUSY_TIMEOUT_S
            raise locked from error

    def new_image_id(self, session: Session) -> int:
        """Return the next id; the sequence advances when the transaction is about to be committed.

        Used directly, the sequence would lose an id for each image of a failed transaction.
        """
        if _LAST_ID not in session.info:
            session.info[_LAST_ID] = session.scalar(_LAST_GIVEN)
        session.info[_LAST_ID] += 1
        return int(session.info[_LAST_ID])

    def finish(self, session: Session) -> None:
        """Record which ids were given."""
        if _LAST_ID in session.info:
            session.flush()  # every failure happens before this
            session.execute(text("SELECT setval('images_id_seq', :last)"), {"last": session.info[_LAST_ID]})

    def update_by_id(
        self, connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Set columns of many rows by one statement: one for each row takes ten times as long."""
        columns = [list(values) for values in zip(*rows, strict=True)]
        arrays = [
            cast(bindparam(f"values_{name}", values), ARRAY(table.c[name].type))
            for name, values in zip(names, columns, strict=True)
        ]
        new = func.unnest(*arrays).table_valued(*names).render_derived(name="new")
        changed = {name: new.c[name] for name in names[:-1]}
        connection.execute(update(table).where(table.c.id == new.c.id).values(changed))

    def loaded(self, connection: Connection, table: str) -> None:
        """Advance the sequence of a table; it never goes back."""
        if table != GenerationRow.__tablename__:
            column = Base.metadata.tables[table].c.id
            given = select_(column_("last_value")).select_from(table_(f"{table}_id_seq")).scalar_subquery()
            highest = func.greatest(select_(func.max(column)).scalar_subquery(), given)
            connection.execute(select_(func.setval(cast(f"{table}_id_seq", REGCLASS), highest)))

    @contextmanager
    def alone(self, engine: Engine) -> Iterator[None]:
        """Hold the writer's lock with one connection, and use only this one for writes."""
        with self._holding(engine, func.pg_try_advisory_lock(self._key)) as connection:
            self._holder = connection
            try:
                yield
            finally:
                self._holder = None

    @contextmanager
    def not_being_written(self, engine: Engine) -> Iterator[None]:
        """Share the writer's lock with others that lock out writers."""
        with self._holding(engine, func.pg_try_advisory_lock_shared(self._key)):
            yield

    @contextmanager
    def _holding(self, engine: Engine, take: ColumnElement[bool]) -> Iterator[Connection]:
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
            if not connection.scalar(select_(take)):
                raise self._locked(connection)
            connection.commit()
            try:
                yield connection
            finally:
                with suppress(SQLAlchemyError, WhatwhereError):  # the lock ends with the connection, too
                    connection.rollback()
                    connection.execute(select_(func.pg_advisory_unlock_all()))
                connection.invalidate()  # it must never return to the pool with the lock

    def _locked(self, connection: Connection) -> CollectionLocked:
        """Return an error that names the holder of the writer's lock."""
        found = connection.execute(_HOLDERS, {"key": self._key}).all()
        holders = [f"{name or 'a program'} (process {pid} of the server, from {host or 'its machine'})"
                   for pid, name, host in found]  # fmt: skip
        return CollectionLocked(
            f"{self.name} is locked by {' and '.join(holders) or 'another process'}: "
            "wait until that ends, then run again"
        )

    def faults(self, connection: Connection, most: int) -> Generator[str]:
        """Yield the invalid indexes of an interrupted REINDEX; the server checks pages when the rows are read."""
        del most
        for index in connection.scalars(_UNUSABLE_INDEXES):
            yield f"{self.name}: the index {index} is invalid: `whatwhere verify --repair` rebuilds it"

    def orphans(self, connection: Connection) -> Iterator[tuple[str, int, str]]:
        """Yield (table, row id, target table) of dangling references, which only a superuser or damage can cause."""
        for table in Base.metadata.sorted_tables:
            for key in table.foreign_keys:
                there = select_(key.column).where(key.column == key.parent).exists()
                for id_ in connection.scalars(select_(table.c.id).where(key.parent.is_not(None), ~there)):
                    yield table.name, id_, key.column.table.name

    def take_time(self, connection: Connection) -> None:
        """Remove the time limit for the statements of this transaction."""
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")

    def reindexing(self) -> list[str]:
        """Return a statement for each table, because the owner of the tables need not own the schema."""
        return [f"REINDEX TABLE {table}" for table in Base.metadata.tables]

    def vacuuming(self) -> list[str]:
        """Return a statement for each table; not FULL, which would block readers."""
        return [f"VACUUM (ANALYZE) {table}" for table in Base.metadata.tables]

    def _named(self, context: ExceptionContext) -> WhatwhereError | None:
        """Return our error for an error of the driver, None if it concerns the values of a statement."""
        error = context.original_exception
        said = str(error).strip().replace("\n", " ")
        if not isinstance(error, _WithCode) or error.sqlstate is None:
            return self._without_code(context, said)
        for codes, error_of in _BY_CODE:
            if error.sqlstate.startswith(codes):
                return error_of(self, said)
        return None

    def _without_code(self, context: ExceptionContext, said: str) -> WhatwhereError | None:
        """Return the error for a message of the driver, which has no SQLSTATE code."""
        assert context.dialect.dbapi is not None  # the driver itself raised the error
        if isinstance(context.original_exception, context.dialect.dbapi.DataError) and "NUL" in said:
            return InvalidRequest(f"a text contains NUL, which PostgreSQL does not accept ({said})")
        if not isinstance(context.original_exception, context.dialect.dbapi.OperationalError):
            return None
        connecting = context.connection is None
        if connecting and any(refusal in said.lower() for refusal in _REFUSALS):
            return self._refused(said)
        return self._unavailable(said)

    def _refused(self, said: str) -> CatalogRefused:
        return CatalogRefused(
            f"{self.name} refused access to {self._place.user} ({said}): check role, database, privileges and SSL "
            "mode, and set the password in PGPASSWORD or ~/.pgpass"
        )

    def _unavailable(self, said: str) -> CatalogUnavailable:
        return CatalogUnavailable(
            f"{self.name} does not answer ({said}): check that the server is running and reachable, then try again"
        )

    def _not_writable(self, said: str) -> CollectionNotWritable:
        return CollectionNotWritable(
            f"{self.name} cannot be written ({said}): free disk space on the server, or use one that is not read-only, "
            "then run again; committed work is kept"
        )

    def _corrupt(self, said: str) -> CollectionCorrupt:
        return CollectionCorrupt(f"{self.name} is not a readable catalog ({said}): {self.remedy}")

    def _held(self, said: str) -> CollectionLocked:
        return CollectionLocked(f"another process has locked {self.name} ({said}): wait until it ends, then run again")


# Prefixes of SQLSTATE codes (PostgreSQL, appendix A) by method.
_BY_CODE: Sequence[tuple[tuple[str, ...], Callable[[PostgreSql, str], WhatwhereError]]] = (
    (("28", "3D000", "42501", "57P04"), PostgreSql._refused),
    (("25006", "53100"), PostgreSql._not_writable),
    (("55P03", "55006", "40"), PostgreSql._held),
    # Lost connections, a server without memory or free connections, a statement timeout, a server that shuts down.
    (("08", "53", "57"), PostgreSql._unavailable),
    # Our statements are correct, so if a table or a column is missing, the tables are not ours.
    (("XX", "58", "42", "3F000"), PostgreSql._corrupt),
)


def _renew(connection: object, *_: object) -> None:
    """Replace a connection that the server has closed: an idle one must have nothing to read."""
    # The local socket is polled, because a query to the server would cost another round trip.
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)  # type: ignore[arg-type] # it has a fileno
    if waiting.poll(0):
        raise DisconnectionError
