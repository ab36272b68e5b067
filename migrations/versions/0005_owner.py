"""Add the collection that the catalog belongs to.

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

from whatwhere.indexer.catalog.tables import ID

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, which is empty: the next run knows the collection."""
    op.create_table(
        "owner",
        sa.Column("id", ID, nullable=False),
        sa.Column("collection_id", sa.String(length=64), nullable=False),
        sa.Column("home", sa.String(), nullable=False),
        sa.Column("home_mark", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_owner")),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("owner")
