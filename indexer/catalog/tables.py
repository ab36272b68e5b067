"""The tables. A change needs a migration (`alembic check` compares them)."""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC with its time zone, also from SQLite, which stores none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC."""
        if value is None:
            return None
        # SQLite returns no time zone, PostgreSQL that of the session.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[dict[str, Any]]):
    """JSON values. 1, 1.0 and true differ, although they are equal in Python."""

    impl = JSON
    cache_ok = True

    def compare_values(self, x: Any, y: Any) -> bool:
        """Tell whether two values are the same JSON."""
        return same_json(x, y)


def same_json(first: object, second: object) -> bool:
    """Tell whether two values are the same JSON, regardless of the order of keys."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


# Compared by code point in both databases: SQLite does so by default, PostgreSQL with the collation C.
def code_points(length: int | None = None) -> String:
    """Return the type of a text column that is compared."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


CODE_POINTS = code_points()
# 64 bits: SQLite's INTEGER has them, and only INTEGER can be an autoincrement key.
ID = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json}  # noqa: RUF012 - as SQLAlchemy declares it


class ShardRow(Base):
    """A shard file. `checksum` is of the row, not of the file."""

    __tablename__ = "shards"

    id: Mapped[int] = mapped_column(ID, primary_key=True)
    file_name: Mapped[str] = mapped_column(String(255), unique=True)
    image_count: Mapped[int]
    byte_count: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    checksum: Mapped[int | None] = mapped_column(BigInteger)


class ImageRow(Base):
    """Distinct content, with all sources where it was found. Ids are never reused (AUTOINCREMENT).

    `removed_at` is set if a user removed it: then it stays removed. It is not set if the image lost its last source.
    `user_metadata` merges the metadata of its sources; `properties` has the same values in rows, for filters.
    """

    __tablename__ = "images"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - as SQLAlchemy declares it

    id: Mapped[int] = mapped_column(ID, primary_key=True)
    content_hash: Mapped[str | None] = mapped_column(code_points(64), unique=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    width: Mapped[int]
    height: Mapped[int]
    byte_count: Mapped[int] = mapped_column(BigInteger)
    mime_type: Mapped[str] = mapped_column(code_points(64))
    failure_reason: Mapped[str | None] = mapped_column(String(64))
    failure_message: Mapped[str | None]
    shard_id: Mapped[int | None] = mapped_column(ID, ForeignKey("shards.id"))
    shard_row: Mapped[int | None]
    user_metadata: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    removed_at: Mapped[datetime | None]
    checksum: Mapped[int | None] = mapped_column(BigInteger)

    shard: Mapped[ShardRow | None] = relationship(lazy="joined")
    sources: Mapped[list["SourceRow"]] = relationship(back_populates="image", lazy="selectin", order_by="SourceRow.id")


class SourceRow(Base):
    """A place where an image was found. `origins` has its metadata by origin: file, sidecar, exif.

    `vanished_at` is set if a run found that the file no longer exists. `readable_uri` is `storage.readable.readable` of
    the URI, null if both are equal.
    """

    __tablename__ = "sources"

    id: Mapped[int] = mapped_column(ID, primary_key=True)
    uri: Mapped[str] = mapped_column(CODE_POINTS, unique=True)
    image_id: Mapped[int] = mapped_column(ID, ForeignKey("images.id"), index=True)
    byte_count: Mapped[int] = mapped_column(BigInteger)
    modified_ns: Mapped[int] = mapped_column(BigInteger)
    origins: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict, server_default=text("'{}'"))
    checksum: Mapped[int | None] = mapped_column(BigInteger)
    vanished_at: Mapped[datetime | None]
    readable_uri: Mapped[str | None] = mapped_column(CODE_POINTS, index=True)

    image: Mapped[ImageRow] = relationship(back_populates="sources")


class PropertyRow(Base):
    """A metadata value of an image, or an element of a list. The name is its path, with dots between keys.

    `kind` is number (in `number_value`), bool (1 or 0), time (seconds since 1970, and its text), string (in
    `text_value`) or member (`text_value` is a key of the object with this name). `integer_value` has the exact number
    if it is an integer of more than 53 bits, which `number_value` may round; else it is null.
    """

    __tablename__ = "properties"
    __table_args__ = (Index(None, "name", "text_value"), Index(None, "name", "number_value"))

    id: Mapped[int] = mapped_column(ID, primary_key=True)
    image_id: Mapped[int] = mapped_column(ID, ForeignKey("images.id"), index=True)
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(String(8))
    text_value: Mapped[str | None] = mapped_column(CODE_POINTS)
    number_value: Mapped[float | None] = mapped_column(Double)
    integer_value: Mapped[int | None] = mapped_column(BigInteger)


class SkippedRow(Base):
    """A file or folder (its URI ends in "/") that the last scan of its place passed over, and why."""

    __tablename__ = "skipped"

    id: Mapped[int] = mapped_column(ID, primary_key=True)
    uri: Mapped[str] = mapped_column(CODE_POINTS, unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str]


class RunRow(Base):
    """A run of the indexer."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(ID, primary_key=True)
    started_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    summary: Mapped[dict[str, Any]] = mapped_column(default=dict)


class OwnerRow(Base):
    """The collection that the catalog belongs to: one row. `home` and `home_mark` say where its directory is."""

    __tablename__ = "owner"

    id: Mapped[int] = mapped_column(ID, primary_key=True)
    collection_id: Mapped[str] = mapped_column(String(64))
    home: Mapped[str]
    home_mark: Mapped[str] = mapped_column(String(64))


class GenerationRow(Base):
    """A published generation."""

    __tablename__ = "generations"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    image_count: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)
