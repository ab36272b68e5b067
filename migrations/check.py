"""Compare the tables with what the migrations make (`alembic check`), on a database of its own."""

import tempfile
from pathlib import Path

from alembic import command
from sqlalchemy import Connection

from whatwhere.indexer.catalog.database import migration_config
from whatwhere.indexer.catalog.sqlite import connect


def main() -> None:
    """Fail when a table was changed without a migration."""
    with tempfile.TemporaryDirectory() as folder, connect(Path(folder) / "catalog.db").begin() as connection:
        compare(connection)


def compare(connection: Connection) -> None:
    """Fail when the migrations make other tables than the code has, in an empty database of whichever kind."""
    command.upgrade(migration_config(connection), "head")
    command.check(migration_config(connection))


if __name__ == "__main__":
    main()
