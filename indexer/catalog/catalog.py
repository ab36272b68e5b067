"""The catalogue: plain values in, frozen dataclasses out, one transaction a call. Each topic has a file of its own."""

from contextlib import ExitStack
from pathlib import Path

from alembic import command
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from indexer.catalog.checking import Checking
from indexer.catalog.database import REMEDY, connect, migration_config, unreadable_values_named
from indexer.catalog.filtering import Filtering
from indexer.catalog.metadata import Annotating
from indexer.catalog.reading import Reading
from indexer.catalog.recording import Recording
from indexer.catalog.removing import Removing
from indexer.catalog.shelving import Shelving
from indexer.errors import CollectionCorrupt, CollectionMismatch


class Catalog(Reading, Filtering, Recording, Annotating, Removing, Shelving, Checking):
    """A catalogue in one database. Safe to use from several threads.

    Any call raises CollectionCorrupt where the database or a row that is read is damaged, CollectionNotWritable where
    it cannot be written, CollectionLocked where another process holds it for long.
    """

    @classmethod
    def create(cls, path: Path) -> "Catalog":
        """Open for writing, made or brought to the newest schema."""
        with ExitStack() as on_error:
            catalog = on_error.enter_context(cls(connect(path)))
            catalog._refuse_newer_schema(ScriptDirectory.from_config(migration_config()))
            with unreadable_values_named(), catalog._engine.begin() as connection:
                command.upgrade(migration_config(connection), "head")
            on_error.pop_all()
        return catalog

    @classmethod
    def open(cls, path: Path) -> "Catalog":
        """Open for reading; CollectionMismatch when the schema is not this version's."""
        if not path.is_file():
            raise CollectionCorrupt(f"{path} is missing: restore it from a backup, or index into a new directory")
        scripts = ScriptDirectory.from_config(migration_config())
        with ExitStack() as on_error:
            catalog = on_error.enter_context(cls(connect(path, read_only=True)))
            found = catalog._refuse_newer_schema(scripts)
            if found is None:
                raise CollectionCorrupt(
                    f"{path} is not a readable catalogue, or its first run was stopped at once: run `whatwhere index` "
                    f"again; if it held images, {REMEDY}"
                )
            if found != scripts.get_current_head():
                raise CollectionMismatch(
                    f"{path} has the older schema {found}: run `whatwhere rebuild --collection {path.parent}` once to "
                    "bring it up to date"
                )
            on_error.pop_all()
        return catalog

    def _refuse_newer_schema(self, scripts: ScriptDirectory) -> str | None:
        with self._engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        if found is not None and found not in {revision.revision for revision in scripts.walk_revisions()}:
            raise CollectionMismatch(f"the catalogue has schema {found}, made by a newer whatwhere: upgrade whatwhere")
        return found

    def __enter__(self) -> "Catalog":
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection."""
        self.close()
