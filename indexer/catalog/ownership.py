"""Record which collection a catalog belongs to, and where its directory is."""

from sqlalchemy import inspect, select

from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.records import Owner
from whatwhere.indexer.catalog.tables import ImageRow, OwnerRow, ShardRow

_ONLY = 1  # id of the one row


class OwnerTable(Database):
    """The owner of a catalog. Every method but `claim` works on a catalog of any schema, or without one."""

    def owner(self) -> Owner | None:
        """Return the collection that the catalog belongs to, None if an older version wrote it or it is new."""
        with self._asking() as connection:
            if not inspect(connection).has_table(OwnerRow.__tablename__):
                return None
            row = connection.execute(select(OwnerRow.collection_id, OwnerRow.home, OwnerRow.home_mark)).one_or_none()
        return None if row is None else Owner(*row)

    def shard_sizes(self) -> dict[str, int]:
        """Return the size in bytes of each recorded shard by its file name."""
        with self._asking() as connection:
            if not inspect(connection).has_table(ShardRow.__tablename__):
                return {}
            rows = connection.execute(select(ShardRow.file_name, ShardRow.byte_count))
            return {file_name: byte_count for file_name, byte_count in rows}  # noqa: C416 - a row is not a pair to mypy

    def has_images(self) -> bool:
        """Tell whether any image is recorded, in whatever state."""
        with self._asking() as connection:
            if not inspect(connection).has_table(ImageRow.__tablename__):
                return False
            return connection.scalar(select(ImageRow.id).limit(1)) is not None

    def claim(self, owner: Owner) -> None:
        """Record the owner, unless it is recorded already."""
        if self.owner() != owner:
            with self._writing() as session:
                session.merge(OwnerRow(id=_ONLY, **vars(owner)))
