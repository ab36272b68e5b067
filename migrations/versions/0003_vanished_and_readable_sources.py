"""Add to sources when they vanished and how people read their URIs; compare metadata in one normalization form.

Revision: 0003, after 0002
"""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from whatwhere.indexer.catalog.checksums import checksum_of
from whatwhere.indexer.catalog.database import Damage
from whatwhere.indexer.catalog.tables import CODE_POINTS, ID, UtcDateTime
from whatwhere.indexer.storage.readable import composed, readable_if_other

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SOURCES = sa.table(
    "sources",
    sa.column("id", ID),
    sa.column("uri", sa.String),
    sa.column("image_id", ID),
    sa.column("byte_count", sa.BigInteger),
    sa.column("modified_ns", sa.BigInteger),
    sa.column("metadata", sa.JSON),
    sa.column("checksum", sa.BigInteger),
    sa.column("vanished_at", UtcDateTime),
    sa.column("readable_uri", sa.String),
)
_PROPERTIES = sa.table(
    "properties", sa.column("id", ID), sa.column("name", sa.String), sa.column("text_value", sa.String)
)
_LATER = ("vanished_at", "readable_uri")
_ROWS_AT_ONCE = 1000


def upgrade() -> None:
    """Add the columns, and fill them for URIs that people read in another way; normalize texts for filters."""
    op.add_column("sources", sa.Column("vanished_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("sources", sa.Column("readable_uri", CODE_POINTS, nullable=True))
    for rows in _parts(_SOURCES, _SOURCES.c.id, _SOURCES.c.uri):
        others = {row.id: other for row in rows if (other := readable_if_other(row.uri)) is not None}
        _reseal({id_: {"readable_uri": other} for id_, other in others.items()})
    op.create_index(op.f("ix_sources_readable_uri"), "sources", ["readable_uri"])
    for rows in _parts(_PROPERTIES, *_PROPERTIES.c):
        _set(
            _PROPERTIES,
            [
                {"row_id": row.id, "new_name": composed(row.name), "new_text_value": text}
                for row in rows
                if (composed(row.name), text := row.text_value and composed(row.text_value))
                != (row.name, row.text_value)
            ],
            ("name", "text_value"),
        )


def _parts(table: Any, *columns: Any) -> Iterator[Sequence[Any]]:
    """Yield these columns of a table's rows in groups."""
    after = 0
    query = sa.select(*columns).order_by(table.c.id).limit(_ROWS_AT_ONCE)
    while rows := op.get_bind().execute(query.where(table.c.id > after)).all():
        yield rows
        if rows[-1].id <= after:
            raise Damage(f"the table {table.name}", "has its rows out of order")
        after = rows[-1].id


def _reseal(changes: dict[int, dict[str, Any]]) -> None:
    """Change sources by id; those that match their checksum also match it afterwards."""
    if not changes:
        return
    found = op.get_bind().execute(sa.select(_SOURCES).where(_SOURCES.c.id.in_(changes)))
    sealed = []
    for row in map(lambda found: found._asdict(), found):  # noqa: C417 - a row has no dict of its own
        after = {**row, **changes[row["id"]]}
        intact = row["checksum"] == checksum_of("sources", row)
        after["checksum"] = checksum_of("sources", after) if intact else row["checksum"]
        sealed.append({"row_id": row["id"], **{f"new_{name}": after[name] for name in (*_LATER, "checksum")}})
    _set(_SOURCES, sealed, (*_LATER, "checksum"))


def _set(table: Any, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    """Set columns of rows by id."""
    statement = sa.update(table).where(table.c.id == sa.bindparam("row_id"))
    values = {name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in columns}
    if rows:
        op.get_bind().execute(statement.values(values), rows)


def downgrade() -> None:
    """Undo the upgrade; texts for filters stay normalized."""
    filled = sa.or_(*(_SOURCES.c[name].is_not(None) for name in _LATER))
    ids = op.get_bind().scalars(sa.select(_SOURCES.c.id).where(filled)).all()
    for start in range(0, len(ids), _ROWS_AT_ONCE // 2):
        _reseal({id_: dict.fromkeys(_LATER) for id_ in ids[start : start + _ROWS_AT_ONCE // 2]})
    op.drop_index(op.f("ix_sources_readable_uri"), "sources")
    for name in reversed(_LATER):
        op.drop_column("sources", name)
