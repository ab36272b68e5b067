"""A checksum for each row, so that a change by a faulty disk or another program is noticed when the row is read."""

import json
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from sqlalchemy import Column, Table, event
from sqlalchemy.orm import DeclarativeBase, Mapper, object_mapper
from sqlalchemy.sql.schema import CallableColumnDefault

from whatwhere.indexer.catalog.database import Damage
from whatwhere.indexer.catalog.tables import ImageRow, ShardRow, SourceRow

SEALED = (ImageRow, SourceRow, ShardRow)
# The id is not known when a row is inserted; updated_at is set by the statement itself.
_LEFT_OUT = ("id", "checksum", "updated_at")
# Columns that a later schema added: left out while they are null, so that older rows keep their checksums.
_LEFT_OUT_IF_NULL = ("vanished_at", "readable_uri")


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} is not a type of the catalog")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain, allow_nan=False)


def checksum_of(table: str, values: Mapping[str, object]) -> int:
    """Return the CRC-32 of a row's values by column name, as canonical JSON; `values` may contain ignored columns."""
    kept = dict(values)
    for name in _LEFT_OUT:
        kept.pop(name, None)
    for name in _LEFT_OUT_IF_NULL:
        if name in kept and kept[name] is None:
            del kept[name]
    return zlib.crc32(_CANONICAL.encode([table, kept]).encode())


def checksum_of_source(row: Sequence[Any]) -> int:
    """Return what `checksum_of` returns for a row of `sources`: its columns in order, the metadata as JSON text.

    The canonical JSON of the usual row, without metadata, is written here: a million rows take seconds.
    """
    _, uri, image_id, byte_count, modified_ns, metadata, _, vanished_at, readable_uri = row
    if metadata != "{}" or vanished_at is not None:
        values = dict(zip(SourceRow.__table__.columns.keys(), row, strict=True))
        return checksum_of(SourceRow.__tablename__, {**values, "metadata": json.loads(metadata)})
    other = "" if readable_uri is None else f'"readable_uri":{_quoted(readable_uri)},'
    text = (
        f'["sources",{{"byte_count":{byte_count},"image_id":{image_id},"metadata":{{}},"modified_ns":{modified_ns},'
        f'{other}"uri":{_quoted(uri)}}}]'
    )
    return zlib.crc32(text.encode())


def verify(table: Table, values: Mapping[str, object]) -> None:
    """Raise Damage if a row does not match its checksum. `values` has all columns."""
    if values["checksum"] != checksum_of(table.name, values):
        raise Damage(f"{table.name[:-1]} {values['id']}", "does not match its checksum")


def _values(row: DeclarativeBase) -> dict[str, object]:
    """Return an object's values by column name; the column `metadata` has another attribute name."""
    return {column.name: getattr(row, key) for key, column in _columns(object_mapper(row))}


@cache
def _columns(mapper: Mapper[DeclarativeBase]) -> list[tuple[str, Column[Any]]]:
    return [(attribute.key, mapper.columns[attribute.key]) for attribute in mapper.column_attrs]


def _seal(mapper: Mapper[DeclarativeBase], connection: object, row: Any) -> None:
    """Set the checksum of a row that is about to be written; first its defaults, which the checksum includes."""
    for key, column in _columns(mapper):
        if getattr(row, key) is None and isinstance(column.default, CallableColumnDefault):
            setattr(row, key, column.default.arg(None))  # type: ignore[arg-type] # it takes no context
    row.checksum = checksum_of(row.__table__.name, _values(row))


for _sealed in SEALED:
    event.listen(_sealed, "before_insert", _seal)
    event.listen(_sealed, "before_update", _seal)
