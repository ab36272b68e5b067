"""Entry point of Alembic: run migrations on the given connection (see `whatwhere.indexer.catalog.catalog`)."""

from alembic import context

from whatwhere.indexer.catalog.tables import Base

# SQLite needs batch mode to alter a table; its DDL is transactional, which Alembic does not assume.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
