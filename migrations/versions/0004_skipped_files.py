"""Add the files and folders that a scan passed over.

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op

from whatwhere.indexer.catalog.tables import CODE_POINTS, ID

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "skipped",
        sa.Column("id", ID, nullable=False),
        sa.Column("uri", CODE_POINTS, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_skipped")),
        sa.UniqueConstraint("uri", name=op.f("uq_skipped_uri")),
    )


def downgrade() -> None:
    """Drop the table: a run fills it again."""
    op.drop_table("skipped")
