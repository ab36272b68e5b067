"""Compare the tables with what the migrations make (`alembic check`), on a database of its own."""

import tempfile
from pathlib import Path

from alembic import command

from indexer.catalog.catalog import migration_config


def main() -> None:
    """Fail when a table was changed without a migration."""
    with tempfile.TemporaryDirectory() as folder:
        config = migration_config(f"sqlite:///{Path(folder) / 'catalog.db'}")
        command.upgrade(config, "head")
        command.check(config)


if __name__ == "__main__":
    main()
