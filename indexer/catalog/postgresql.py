"""The catalogue in a PostgreSQL database: writers keep each other away by a lock of the database's own."""

import hashlib
import select
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol, runtime_checkable

from sqlalchemy import ColumnElement, cast, create_engine, event, func, text
from sqlalchemy import column as column_
from sqlalchemy import select as select_
from sqlalchemy import table as table_
from sqlalchemy.dialects.postgresql import OID, REGCLASS
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.orm import Session

from whatwhere.indexer.catalog import database
from whatwhere.indexer.catalog.database import Backend
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

_LAST_ID = "last_image_id"  # in a session: the highest id that its transaction has given
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
# What libpq says of a server that is there and does not let us in; it gives no code for it.
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
    """A catalogue in a schema of a PostgreSQL database.

    Its writer's lock is an advisory lock whose key is made of the schema's name, so that each collection of a database
    has its own. `alone` holds it by a connection, through which all writes go then; a write outside of `alone` takes it
    for its transaction. Ids of images are given in the order of recording and are never used again. A transaction that
    fails uses none up, unless it is the commit itself that fails.
    """

    migrate = "whatwhere rebuild --collection COLLECTION"

    def __init__(self, address: str) -> None:
        self._place = PostgresqlUrl.of(address)
        self.name = f"the catalogue at {self._place.shown}"
        self.remedy = f"restore the schema {self._place.schema} from a backup (pg_restore), or the whole database"
        digest = hashlib.sha256(f"whatwhere {self._place.schema}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        self._holder: Connection | None = None  # the connection that holds the lock, to which writes take turns
        self._turn = threading.Lock()

    def engine(self, *, read_only: bool) -> Engine:
        """Return an engine; InvalidRequest without psycopg. Connections are made when they are needed."""
        try:
            # Most questions are one statement, which sees one state anyway: without a transaction it is one round trip
            # to the server instead of three.
            engine = create_engine(
                self._place.url,
                isolation_level="AUTOCOMMIT",
                connect_args=self._place.connect_arguments(read_only, database.BUSY_TIMEOUT_S),
                hide_parameters=True,
            )
        except ImportError as error:
            raise InvalidRequest(
                f"{self.name} needs psycopg, which is not here ({error}): pip install 'whatwhere[postgresql]'",
                field="catalog",
            ) from error
        event.listen(engine, "checkout", _renew)
        event.listen(engine, "handle_error", self._named)
        return engine

    def require(self) -> None:
        """Do nothing: only the server knows."""

    def require_access(self, connection: Connection) -> None:
        """Raise CatalogRefused for a schema that is there and may not be used."""
        found = func.to_regnamespace(self._place.schema)
        if connection.scalar(select_(~func.has_schema_privilege(cast(found, OID), "USAGE"))):
            raise self._refused(f"permission denied for schema {self._place.schema}")

    def prepare(self, connection: Connection) -> None:
        """Make the schema; CatalogRefused in a database that cannot hold every text."""
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise CatalogRefused(f"{self.name} is in a database of the encoding {encoding}: make one with UTF8")
        # Not IF NOT EXISTS, for which the right to make schemas is asked where there is nothing to make.
        if not connection.scalar(select_(func.to_regnamespace(self._place.schema).is_not(None))):
            connection.exec_driver_sql(f"CREATE SCHEMA {self._place.schema}")

    def asking(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection without a transaction."""
        return engine.connect()

    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Give a connection whose transaction sees the state of its first statement to its end."""
        # Not SERIALIZABLE: who only reads committed chunks, each of which is whole, sees a state that there was.
        return engine.connect().execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """Give the connection that holds the lock, to one thread at a time, or one that takes it when it begins."""
        # READ COMMITTED is enough behind the lock, for nobody else writes; and it is needed where the lock is waited
        # for: a snapshot from before the wait would not see what the other writer did.
        if self._holder is None:
            with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
                yield connection
            return
        with self._turn:
            yield self._required(self._holder)

    def _required(self, holder: Connection) -> Connection:
        """Return the connection that holds the lock; CatalogUnavailable when it is gone, and the lock with it."""
        if holder.closed or holder.invalidated:  # left alone, SQLAlchemy would go on with a connection without the lock
            raise CatalogUnavailable(
                f"{self.name} was lost, and with the connection the right to write to it: run again, it continues"
            )
        return holder

    @contextmanager
    def outside_transaction(self, engine: Engine) -> Iterator[Connection]:
        """Give a connection in which each statement stands for itself, that which holds the lock where there is one."""
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
        """Take the writer's lock until the transaction ends, unless the connection holds it anyway."""
        if self._holder is not None or connection.scalar(select_(func.pg_try_advisory_xact_lock(self._key))):
            return
        locked = self._locked(connection)
        try:
            connection.execute(select_(func.pg_advisory_xact_lock(self._key)))
        except CollectionLocked as error:  # after BUSY_TIMEOUT_S
            raise locked from error

    def new_image_id(self, session: Session) -> int:
        """Return the next id; that it is given is recorded when the transaction is about to be committed.

        A sequence left alone would use an id up for each image of a transaction that fails.
        """
        if _LAST_ID not in session.info:
            session.info[_LAST_ID] = session.scalar(_LAST_GIVEN)
        session.info[_LAST_ID] += 1
        return int(session.info[_LAST_ID])

    def finish(self, session: Session) -> None:
        """Record which ids were given."""
        if _LAST_ID in session.info:
            session.flush()  # what fails, fails before
            session.execute(text("SELECT setval('images_id_seq', :last)"), {"last": session.info[_LAST_ID]})

    def loaded(self, connection: Connection, table: str) -> None:
        """Set the table's sequence, never back."""
        if table != GenerationRow.__tablename__:
            column = Base.metadata.tables[table].c.id
            given = select_(column_("last_value")).select_from(table_(f"{table}_id_seq")).scalar_subquery()
            highest = func.greatest(select_(func.max(column)).scalar_subquery(), given)
            connection.execute(select_(func.setval(cast(f"{table}_id_seq", REGCLASS), highest)))

    @contextmanager
    def alone(self, engine: Engine) -> Iterator[None]:
        """Hold the writer's lock by a connection, and write through that alone."""
        with self._holding(engine, func.pg_try_advisory_lock(self._key)) as connection:
            self._holder = connection
            try:
                yield
            finally:
                self._holder = None

    @contextmanager
    def not_being_written(self, engine: Engine) -> Iterator[None]:
        """Share the writer's lock with others that keep writers away."""
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
                with suppress(SQLAlchemyError, WhatwhereError):  # it goes with the connection too, a moment later
                    connection.rollback()
                    connection.execute(select_(func.pg_advisory_unlock_all()))
                connection.invalidate()  # in no case may it go back to the pool with the lock

    def _locked(self, connection: Connection) -> CollectionLocked:
        """Return an error that says who holds the writer's lock."""
        found = connection.execute(_HOLDERS, {"key": self._key}).all()
        holders = [f"{name or 'a program'} (process {pid} of the server, from {host or 'its machine'})"
                   for pid, name, host in found]  # fmt: skip
        return CollectionLocked(
            f"{self.name} is held by {' and '.join(holders) or 'another process'}: wait for that to end, then run again"
        )

    def faults(self, connection: Connection, most: int) -> Generator[str]:
        """Yield the indexes that a stopped REINDEX left behind; pages are looked at when the rows are read."""
        del most
        for index in connection.scalars(_UNUSABLE_INDEXES):
            yield f"{self.name}: the index {index} is not whole: `whatwhere verify --repair` makes it anew"

    def orphans(self, connection: Connection) -> Iterator[tuple[str, int, str]]:
        """Yield (table, row id, target) of references to nothing, which only a superuser, or damage, can make."""
        for table in Base.metadata.sorted_tables:
            for key in table.foreign_keys:
                there = select_(key.column).where(key.column == key.parent).exists()
                for id_ in connection.scalars(select_(table.c.id).where(key.parent.is_not(None), ~there)):
                    yield table.name, id_, key.column.table.name

    def take_time(self, connection: Connection) -> None:
        """Let the statements of a transaction take as long as they need."""
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")

    def reindexing(self) -> list[str]:
        """Return a statement for each table: the owner of tables need not be the schema's."""
        return [f"REINDEX TABLE {table}" for table in Base.metadata.tables]

    def vacuuming(self) -> list[str]:
        """Return a statement for each table; not FULL, which would keep servers from reading."""
        return [f"VACUUM (ANALYZE) {table}" for table in Base.metadata.tables]

    def _named(self, context: ExceptionContext) -> WhatwhereError | None:
        """Return our error for one of the driver's, None for those that speak of a statement's values."""
        error = context.original_exception
        said = str(error).strip().replace("\n", " ")
        if not isinstance(error, _WithCode) or error.sqlstate is None:
            return self._without_code(context, said)
        for codes, error_of in _BY_CODE:
            if error.sqlstate.startswith(codes):
                return error_of(self, said)
        return None

    def _without_code(self, context: ExceptionContext, said: str) -> WhatwhereError | None:
        """Return the error for what the driver, and not the server, says."""
        assert context.dialect.dbapi is not None  # the driver itself said something
        if isinstance(context.original_exception, context.dialect.dbapi.DataError) and "NUL" in said:
            return InvalidRequest(f"a text holds a NUL, which PostgreSQL does not take ({said})")
        if not isinstance(context.original_exception, context.dialect.dbapi.OperationalError):
            return None
        connecting = context.connection is None
        if connecting and any(refusal in said.lower() for refusal in _REFUSALS):
            return self._refused(said)
        return self._unavailable(said)

    def _refused(self, said: str) -> CatalogRefused:
        return CatalogRefused(
            f"{self.name} is refused to {self._place.user} ({said}): see that role, database, rights and SSL mode are "
            "right, and give the password by PGPASSWORD or ~/.pgpass"
        )

    def _unavailable(self, said: str) -> CatalogUnavailable:
        return CatalogUnavailable(
            f"{self.name} does not answer ({said}): see that the server runs and can be reached, then try again"
        )

    def _not_writable(self, said: str) -> CollectionNotWritable:
        return CollectionNotWritable(
            f"{self.name} cannot be written ({said}): give the server room, or the address of one that is not "
            "read-only, then run again; what was committed before is kept"
        )

    def _corrupt(self, said: str) -> CollectionCorrupt:
        return CollectionCorrupt(f"{self.name} is not a readable catalogue ({said}): {self.remedy}")

    def _held(self, said: str) -> CollectionLocked:
        return CollectionLocked(f"another process holds {self.name} ({said}): wait for it to end, then run again")


# The beginnings of SQLSTATE codes (PostgreSQL, appendix A), by what they come to.
_BY_CODE: Sequence[tuple[tuple[str, ...], Callable[[PostgreSql, str], WhatwhereError]]] = (
    (("28", "3D000", "42501", "57P04"), PostgreSql._refused),
    (("25006", "53100"), PostgreSql._not_writable),
    (("55P03", "55006", "40"), PostgreSql._held),
    # Lost connections, a server without memory or room for more, a statement that took too long, a stopping server.
    (("08", "53", "57"), PostgreSql._unavailable),
    # Our statements are right, so where the database finds a table or a column missing, they are not ours.
    (("XX", "58", "42", "3F000"), PostgreSql._corrupt),
)


def _renew(connection: object, *_: object) -> None:
    """Have a connection made anew that the server has closed: nothing may wait on one that nobody uses."""
    # Asked of our own system and not of the server, which would cost each question another round trip.
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)  # type: ignore[arg-type] # it has a fileno
    if waiting.poll(0):
        raise DisconnectionError
