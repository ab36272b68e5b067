"""Alembic's entry point: runs migrations on the connection or URL it is given."""

from alembic import context
from sqlalchemy import Connection, create_engine

from indexer.catalog.tables import Base


def run(connection: Connection) -> None:
    """Run the migrations; SQLite needs the batch mode to alter a table."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with create_engine(context.config.get_main_option("sqlalchemy.url") or "").connect() as opened:
        run(opened)
