"""Compare the tables with those of the migrations (`alembic check`), in a temporary database."""

import tempfile
from pathlib import Path

from alembic import command
from sqlalchemy import Connection

from whatwhere.indexer.catalog.schema import migration_config
from whatwhere.indexer.catalog.sqlite import connect


def main() -> None:
    """Fail if a table was changed without a migration."""
    with tempfile.TemporaryDirectory() as folder, connect(Path(folder) / "catalog.db").begin() as connection:
        compare(connection)


def compare(connection: Connection) -> None:
    """Fail if the migrations create other tables than the code defines, in an empty database of any kind."""
    command.upgrade(migration_config(connection), "head")
    command.check(migration_config(connection))


if __name__ == "__main__":
    main()
