"""The schema's revisions, and the upgrade to the newest one.

Readers need only the revision of a database, which is in a table of Alembic's: importing Alembic would take half of
the time of a short command.
"""

import importlib.resources
from typing import TYPE_CHECKING

from sqlalchemy import column, inspect, select, table
from sqlalchemy.engine import Connection

if TYPE_CHECKING:
    from alembic.config import Config

_VERSION = table("alembic_version", column("version_num"))


def revisions() -> list[str]:
    """Return the revisions of this version, oldest first: the numbers that the names of their files begin with."""
    folder = importlib.resources.files("whatwhere.migrations") / "versions"
    return sorted(name.partition("_")[0] for file in folder.iterdir() if (name := file.name)[:1].isdigit())


def revision_of(connection: Connection) -> str | None:
    """Return the revision of a database, None if it has no schema."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    found: str | None = connection.scalar(select(_VERSION.c.version_num))
    return found


def upgrade(connection: Connection) -> None:
    """Create the tables, or upgrade them to the newest revision."""
    from alembic import command  # noqa: PLC0415 - see above

    command.upgrade(migration_config(connection), "head")


def migration_config(connection: Connection | None = None) -> "Config":
    """Return the configuration of Alembic, to run on `connection`."""
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(importlib.resources.files("whatwhere.migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
