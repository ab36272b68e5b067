"""Add metadata by source and in rows for filters, removal by users, and a checksum for each row.

Revision: 0002, after 0001
"""

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

from whatwhere.indexer.catalog.checksums import checksum_of
from whatwhere.indexer.catalog.database import Damage
from whatwhere.indexer.catalog.metadata import MetadataValue, properties_of
from whatwhere.indexer.catalog.tables import CODE_POINTS, ID, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SHARDS = sa.table(
    "shards",
    sa.column("id", ID),
    sa.column("file_name", sa.String),
    sa.column("image_count", sa.Integer),
    sa.column("byte_count", sa.BigInteger),
    sa.column("sha256", sa.String),
    sa.column("created_at", UtcDateTime),
    sa.column("checksum", sa.BigInteger),
)
_IMAGES = sa.table(
    "images",
    sa.column("id", ID),
    sa.column("content_hash", sa.String),
    sa.column("state", sa.String),
    sa.column("width", sa.Integer),
    sa.column("height", sa.Integer),
    sa.column("byte_count", sa.BigInteger),
    sa.column("mime_type", sa.String),
    sa.column("failure_reason", sa.String),
    sa.column("failure_message", sa.String),
    sa.column("shard_id", ID),
    sa.column("shard_row", sa.Integer),
    sa.column("user_metadata", sa.JSON),
    sa.column("created_at", UtcDateTime),
    sa.column("removed_at", UtcDateTime),
    sa.column("checksum", sa.BigInteger),
)
_SOURCES = sa.table(
    "sources",
    sa.column("id", ID),
    sa.column("uri", sa.String),
    sa.column("image_id", ID),
    sa.column("byte_count", sa.BigInteger),
    sa.column("modified_ns", sa.BigInteger),
    sa.column("metadata", sa.JSON),
    sa.column("checksum", sa.BigInteger),
)
_PROPERTIES = sa.table(
    "properties",
    sa.column("image_id", ID),
    sa.column("name", sa.String),
    sa.column("kind", sa.String),
    sa.column("text_value", sa.String),
    sa.column("number_value", sa.Float),
)
_ROWS_AT_ONCE = 1000


def upgrade() -> None:
    """Add the columns and tables, and fill them from the existing rows."""
    op.add_column("shards", sa.Column("checksum", sa.BigInteger(), nullable=True))
    op.add_column("images", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("images", sa.Column("checksum", sa.BigInteger(), nullable=True))
    op.add_column("sources", sa.Column("metadata", sa.JSON(), server_default=sa.text("'{}'"), nullable=False))
    op.add_column("sources", sa.Column("checksum", sa.BigInteger(), nullable=True))
    op.create_table(
        "properties",
        sa.Column("id", ID, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("text_value", CODE_POINTS, nullable=True),
        sa.Column("number_value", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_properties_image_id_images")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_properties")),
    )
    for columns in (["image_id"], ["name", "text_value"], ["name", "number_value"]):
        op.create_index(op.f(f"ix_properties_{'_'.join(columns)}"), "properties", columns)
    for rows in _parts(_IMAGES):
        _give_to_first_source({row["id"]: row["user_metadata"] for row in rows if row["user_metadata"]})
    for table in (_SHARDS, _IMAGES, _SOURCES):
        for rows in _parts(table):
            _set(table, "checksum", {row["id"]: checksum_of(table.name, row) for row in rows})


def _parts(table: Any) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a table in groups."""
    after = 0
    query = sa.select(table).order_by(table.c.id).limit(_ROWS_AT_ONCE)
    while rows := [row._asdict() for row in op.get_bind().execute(query.where(table.c.id > after))]:
        yield rows
        if rows[-1]["id"] <= after:
            raise Damage(f"the table {table.name}", "has its rows out of order")
        after = rows[-1]["id"]


def _give_to_first_source(metadata: Mapping[int, dict[str, Any]]) -> None:
    """Move the metadata of images, which a downgrade left, to their first sources, and write rows for filters."""
    ids = _SOURCES.c.image_id
    firsts = sa.select(ids, sa.func.min(_SOURCES.c.id)).where(ids.in_(metadata)).group_by(ids)
    sources = {image_id: source_id for image_id, source_id in op.get_bind().execute(firsts)}  # noqa: C416 - rows
    _set(_SOURCES, "metadata", {sources[id_]: {"file": metadata[id_]} for id_ in sources})
    _set(_IMAGES, "user_metadata", {id_: {} for id_ in metadata if id_ not in sources})
    found = [_of_this_schema(id_, row) for id_ in sources for row in properties_of(metadata[id_])]
    if found:
        op.get_bind().execute(sa.insert(_PROPERTIES), found)


def _of_this_schema(image_id: int, value: MetadataValue) -> dict[str, Any]:
    """Return a row of `properties` without the columns of later schemas."""
    return {"image_id": image_id, **{name: held for name, held in value._asdict().items() if name in _PROPERTIES.c}}


def _set(table: Any, column: str, values: Mapping[int, Any]) -> None:
    """Set a column of rows by id."""
    statement = sa.update(table).where(table.c.id == sa.bindparam("row_id"))
    typed = sa.bindparam("new_value", type_=table.c[column].type)
    if values:
        rows = [{"row_id": id_, "new_value": value} for id_, value in values.items()]
        op.get_bind().execute(statement.values({column: typed}), rows)


def downgrade() -> None:
    """Undo the upgrade: images keep their metadata without its origin; a run indexes removed images again."""
    op.drop_table("properties")
    for table, column in (
        ("sources", "checksum"),
        ("sources", "metadata"),
        ("images", "checksum"),
        ("images", "removed_at"),
        ("shards", "checksum"),
    ):
        op.drop_column(table, column)
