"""Compare the tables with what the migrations make (`alembic check`), on a database of its own."""

import tempfile
from pathlib import Path

from alembic import command

from indexer.catalog.database import connect, migration_config


def main() -> None:
    """Fail when a table was changed without a migration."""
    with tempfile.TemporaryDirectory() as folder, connect(Path(folder) / "catalog.db").begin() as connection:
        command.upgrade(migration_config(connection), "head")
        command.check(migration_config(connection))


if __name__ == "__main__":
    main()
