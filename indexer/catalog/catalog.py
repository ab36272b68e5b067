"""Queries on the catalogue: plain values in, frozen dataclasses out, one transaction a call."""

import importlib.resources
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from numpy.typing import NDArray
from sqlalchemy import create_engine, event, func, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from indexer.catalog.records import FAILED, INDEXED, REMOVED, ImageRecord, NewImage, Outcome, ShardRecord, Source
from indexer.catalog.tables import GenerationRow, ImageRow, RunRow, ShardRow, SourceRow
from indexer.errors import CollectionCorrupt, CollectionMismatch

BUSY_TIMEOUT_S = 30.0


def migration_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration, to run on `connection`."""
    config = Config()
    config.set_main_option("script_location", str(importlib.resources.files("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def connect(path: Path, *, read_only: bool = False) -> Engine:
    """Return an engine on a SQLite file whose connections are set for one writer beside many readers."""

    def connection() -> sqlite3.Connection:
        made = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            check_same_thread=False,  # the pool hands a connection to one thread at a time
            isolation_level=None,  # transactions begin where SQLAlchemy says so, also before DDL: see below
        )
        made.execute("PRAGMA foreign_keys=ON")
        if not read_only:
            # WAL: readers go on while the indexer writes. FULL: a committed chunk survives a power cut.
            made.execute("PRAGMA journal_mode=WAL")
            made.execute("PRAGMA synchronous=FULL")
        return made

    engine = create_engine("sqlite://", creator=connection, poolclass=QueuePool)
    # Left alone, the driver commits before each CREATE TABLE, and a migration that is killed stays half done.
    event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN"))
    return engine


class Catalog:
    """A catalogue in one database. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def create(cls, path: Path) -> "Catalog":
        """Open for writing, made or brought to the newest schema."""
        with ExitStack() as on_error:
            catalog = on_error.enter_context(cls(connect(path)))
            catalog._refuse_newer_schema(ScriptDirectory.from_config(migration_config()))
            with catalog._engine.begin() as connection:
                command.upgrade(migration_config(connection), "head")
            on_error.pop_all()
        return catalog

    @classmethod
    def open(cls, path: Path) -> "Catalog":
        """Open for reading; CollectionMismatch when the schema is not this version's."""
        if not path.is_file():
            raise CollectionCorrupt(f"{path} is missing: restore it from a backup, or index into a new directory")
        scripts = ScriptDirectory.from_config(migration_config())
        with ExitStack() as on_error:
            catalog = on_error.enter_context(cls(connect(path, read_only=True)))
            found = catalog._refuse_newer_schema(scripts)
            if found != scripts.get_current_head():
                raise CollectionMismatch(
                    f"{path} has the older schema {found}: run `whatwhere index` on it once to bring it up to date"
                )
            on_error.pop_all()
        return catalog

    def _refuse_newer_schema(self, scripts: ScriptDirectory) -> str | None:
        try:
            with self._engine.connect() as connection:
                found = MigrationContext.configure(connection).get_current_revision()
        except DatabaseError as error:
            raise CollectionCorrupt(f"catalog.db is not a readable catalogue: {error.orig}") from error
        if found is not None and found not in {revision.revision for revision in scripts.walk_revisions()}:
            raise CollectionMismatch(f"the catalogue has schema {found}, made by a newer whatwhere: upgrade whatwhere")
        return found

    def __enter__(self) -> "Catalog":
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection."""
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # --- writing ------------------------------------------------------------------------------------------------

    def start_run(self) -> int:
        """Record the start of a run and return its id."""
        with Session(self._engine) as session, session.begin():
            run = RunRow()
            session.add(run)
            session.flush()
            return run.id

    def finish_run(self, run_id: int, summary: Mapping[str, Any]) -> None:
        """Record the end of a run."""
        with Session(self._engine) as session, session.begin():
            run = session.get_one(RunRow, run_id)
            run.finished_at, run.summary = datetime.now(UTC), dict(summary)

    def record_chunk(self, outcomes: Sequence[Outcome], shard: ShardRecord | None) -> None:
        """Record what became of these sources, in order, with the shard that holds their descriptions: all or nothing.

        A source whose content changed moves to the new image; an image without a source is removed.
        """
        with Session(self._engine) as session, session.begin():
            shard_row = None
            if shard is not None:
                shard_row = ShardRow(**{name: value for name, value in vars(shard).items() if name != "id"})
                session.add(shard_row)
                session.flush()
            for outcome in outcomes:
                self._record(session, outcome, shard_row)

    def _record(self, session: Session, outcome: Outcome, shard: ShardRow | None) -> None:
        source = session.scalar(select(SourceRow).where(SourceRow.uri == outcome.source.uri))
        previous = source.image if source is not None else None
        unreadable = outcome.image is not None and outcome.image.content_hash is None
        if unreadable and previous is not None and previous.content_hash is not None:
            return  # a file that cannot be read today (permissions, network) does not lose what it held yesterday
        image = self._image_of(session, outcome, previous, shard)
        if source is None:
            source = SourceRow(uri=outcome.source.uri)
            session.add(source)
        source.image = image
        source.byte_count, source.modified_ns = outcome.source.byte_count, outcome.source.modified_ns
        session.flush()
        if previous is not None and previous is not image and not previous.sources:
            previous.state = REMOVED

    def _image_of(
        self, session: Session, outcome: Outcome, previous: ImageRow | None, shard: ShardRow | None
    ) -> ImageRow:
        content_hash = outcome.known_hash or (outcome.image.content_hash if outcome.image else None)
        image = None
        if content_hash is not None:
            image = session.scalar(select(ImageRow).where(ImageRow.content_hash == content_hash))
        elif previous is not None and previous.content_hash is None:
            image = previous  # still unreadable
        if image is None:
            image = ImageRow(user_metadata={})
            session.add(image)
        if outcome.image is not None:
            _fill(image, outcome.image, shard)
        elif image.state == REMOVED:
            image.state = FAILED if image.failure_reason else INDEXED
        return image

    def record_generation(self, number: int, image_count: int) -> None:
        """Record a published generation."""
        with Session(self._engine) as session, session.begin():
            session.merge(GenerationRow(number=number, image_count=image_count))

    # --- reading ------------------------------------------------------------------------------------------------

    def unchanged(self, sources: Sequence[Source], *, retry_failed: bool = False) -> set[str]:
        """Return the URIs whose byte count and modification time are as recorded, those to be tried again left out."""
        query = (
            select(SourceRow.uri, SourceRow.byte_count, SourceRow.modified_ns)
            .join(SourceRow.image)
            .where(SourceRow.uri.in_([source.uri for source in sources]), ImageRow.content_hash.is_not(None))
        )
        if retry_failed:
            query = query.where(ImageRow.failure_reason.is_(None))
        with Session(self._engine) as session:
            recorded = {Source(*row) for row in session.execute(query)}
        return {source.uri for source in sources if source in recorded}

    def unreadable(self, sources: Sequence[Source]) -> set[str]:
        """Return the URIs of which no content could be read so far."""
        query = (
            select(SourceRow.uri)
            .join(SourceRow.image)
            .where(SourceRow.uri.in_([source.uri for source in sources]), ImageRow.content_hash.is_(None))
        )
        with Session(self._engine) as session:
            return set(session.scalars(query))

    def content_of(self, uri: str) -> str | None:
        """Return the hash of what was last read at a URI, None when nothing was."""
        query = select(ImageRow.content_hash).join(ImageRow.sources).where(SourceRow.uri == uri)
        with Session(self._engine) as session:
            return session.scalar(query)

    def has_content(self, content_hash: str, *, retry_failed: bool = False) -> bool:
        """Tell whether this content is recorded, failed content only when it is not to be retried."""
        query = select(ImageRow.id).where(ImageRow.content_hash == content_hash)
        if retry_failed:
            query = query.where(ImageRow.failure_reason.is_(None))
        with Session(self._engine) as session:
            return session.scalar(query) is not None

    def id_of_content(self, content_hash: str) -> int | None:
        """Return the id of the indexed image with this content, or None."""
        query = select(ImageRow.id).where(ImageRow.content_hash == content_hash, ImageRow.state == INDEXED)
        with Session(self._engine) as session:
            return session.scalar(query)

    def image(self, image_id: int) -> ImageRecord | None:
        """Return one image in any state, or None."""
        with Session(self._engine) as session:
            row = session.get(ImageRow, image_id)
            return None if row is None else _to_record(row)

    def images(self, *, state: str | None = None, after_id: int = 0, limit: int | None = None) -> list[ImageRecord]:
        """Return images by id, those after `after_id`, in one state or in all."""
        query = select(ImageRow).where(ImageRow.id > after_id).order_by(ImageRow.id).limit(limit)
        if state is not None:
            query = query.where(ImageRow.state == state)
        with Session(self._engine) as session:
            return [_to_record(row) for row in session.scalars(query)]

    def images_by_id(self, ids: Iterable[int]) -> dict[int, ImageRecord]:
        """Return these images by id; unknown ids are left out."""
        with Session(self._engine) as session:
            rows = session.scalars(select(ImageRow).where(ImageRow.id.in_(list(ids))))
            return {row.id: _to_record(row) for row in rows}

    def indexed_ids(self) -> NDArray[np.int64]:
        """Return the ids of all indexed images, ascending."""
        with Session(self._engine) as session:
            ids = session.scalars(select(ImageRow.id).where(ImageRow.state == INDEXED).order_by(ImageRow.id))
            return np.fromiter(ids, dtype=np.int64)

    def places(self, ids: Sequence[int]) -> list[tuple[int, str, int]]:
        """Return (id, shard file, row) of these described images, by shard and row."""
        query = (
            select(ImageRow.id, ShardRow.file_name, ImageRow.shard_row)
            .join(ImageRow.shard)
            .where(ImageRow.id.in_(ids))
            .order_by(ShardRow.id, ImageRow.shard_row)
        )
        with Session(self._engine) as session:
            return [(image_id, file_name, row or 0) for image_id, file_name, row in session.execute(query)]

    def counts(self) -> dict[str, int]:
        """Return the number of images in each state."""
        query = select(ImageRow.state, func.count()).group_by(ImageRow.state)
        with Session(self._engine) as session:
            found = {state: count for state, count in session.execute(query)}  # noqa: C416 - a row is no pair to mypy
        return {state: found.get(state, 0) for state in (INDEXED, FAILED, REMOVED)}

    def shards(self) -> list[ShardRecord]:
        """Return all shards, oldest first."""
        with Session(self._engine) as session:
            return [
                ShardRecord(row.file_name, row.image_count, row.byte_count, row.sha256, row.id)
                for row in session.scalars(select(ShardRow).order_by(ShardRow.id))
            ]


def _fill(image: ImageRow, new: NewImage, shard: ShardRow | None) -> None:
    image.state = FAILED if new.failure_reason else INDEXED
    for name in (
        "content_hash",
        "byte_count",
        "width",
        "height",
        "mime_type",
        "shard_row",
        "failure_reason",
        "failure_message",
    ):
        setattr(image, name, getattr(new, name))
    image.shard = shard if new.shard_row is not None else None


def _to_record(row: ImageRow) -> ImageRecord:
    return ImageRecord(
        id=row.id,
        state=row.state,
        uris=tuple(source.uri for source in row.sources),
        content_hash=row.content_hash,
        width=row.width,
        height=row.height,
        byte_count=row.byte_count,
        mime_type=row.mime_type,
        created_at=row.created_at,
        failure_reason=row.failure_reason,
        failure_message=row.failure_message,
        shard_file=row.shard.file_name if row.shard else None,
        shard_row=row.shard_row,
        user_metadata=row.user_metadata,
    )
