"""Add the exact value of integers that float64 may round to the metadata for filters.

Revision: 0006, after 0005
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from whatwhere.indexer.catalog.metadata import NUMBER, properties_of
from whatwhere.indexer.catalog.tables import ID
from whatwhere.indexer.metadata.values import LARGEST_EXACT

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_IMAGES = sa.table("images", sa.column("id", ID), sa.column("user_metadata", sa.JSON))
_PROPERTIES = sa.table(
    "properties",
    sa.column("image_id", ID),
    sa.column("name", sa.String),
    sa.column("kind", sa.String),
    sa.column("text_value", sa.String),
    sa.column("number_value", sa.Double),
    sa.column("integer_value", sa.BigInteger),
)
_ROWS_AT_ONCE = 500


def upgrade() -> None:
    """Add the column, and write the metadata of images with such integers again."""
    op.add_column("properties", sa.Column("integer_value", sa.BigInteger(), nullable=True))
    large = sa.func.abs(_PROPERTIES.c.number_value) >= float(LARGEST_EXACT)
    query = sa.select(_PROPERTIES.c.image_id).where(_PROPERTIES.c.kind == NUMBER, large).distinct()
    ids = op.get_bind().scalars(query).all()
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        _write_again(ids[start : start + _ROWS_AT_ONCE])


def _write_again(ids: Sequence[int]) -> None:
    """Replace the rows of these images by those of their metadata."""
    bind = op.get_bind()
    images = bind.execute(sa.select(_IMAGES).where(_IMAGES.c.id.in_(ids))).all()
    rows: list[dict[str, Any]] = [
        {"image_id": image.id, **found._asdict()} for image in images for found in properties_of(image.user_metadata)
    ]
    bind.execute(sa.delete(_PROPERTIES).where(_PROPERTIES.c.image_id.in_(ids)))
    if rows:
        bind.execute(sa.insert(_PROPERTIES), rows)


def downgrade() -> None:
    """Drop the column: filters compare such integers as float64 then."""
    op.drop_column("properties", "integer_value")
