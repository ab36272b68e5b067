"""Remove images for users, and sources whose files no longer exist."""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.metadata import refresh
from whatwhere.indexer.catalog.records import FAILED, INDEXED, REMOVED, SHARD_LOST
from whatwhere.indexer.catalog.rows import AT_ONCE, rows_of
from whatwhere.indexer.catalog.runs import state_of
from whatwhere.indexer.catalog.tables import ImageRow, PropertyRow, SourceRow, now

_IMAGES_AT_ONCE = 10_000


def delete_sources(session: Session, sources: Sequence[SourceRow]) -> None:
    """Delete sources; images that lose their last one become removed."""
    images = list(rows_of(session, ImageRow, ImageRow.id, {source.image_id for source in sources}))
    for source in sources:
        source.image.sources.remove(source)
        session.delete(source)
    for image in images:
        if not image.sources:
            image.state = REMOVED
    refresh(session, images)


class RemovalTable(Database):
    """Removed images, which stay removed, and deleted sources, whose images return with their files."""

    def remove(self, ids: Sequence[int]) -> int:
        """Remove images permanently: no later run adds them again, even from another file with the same content.

        Return the number of removed images, without unknown ids and images that a user had removed before.
        """
        with self._writing() as session:
            found = [row for row in rows_of(session, ImageRow, ImageRow.id, ids) if row.removed_at is None]
            for image in found:
                image.state, image.removed_at = REMOVED, now()
        return len(found)

    def restore(self, ids: Sequence[int]) -> int:
        """Undo `remove` and return the number of restored images.

        They are indexed or failed as before. An image that has lost its description or its last source stays removed
        until a run finds its content again; it keeps its id.
        """
        with self._writing() as session:
            found = [row for row in rows_of(session, ImageRow, ImageRow.id, ids) if row.removed_at is not None]
            for image in found:
                image.removed_at = None
                image.state = state_of(image) if image.sources else REMOVED
        return len(found)

    def vanished(self, folders: Sequence[str], seen: Iterable[str]) -> list[str]:
        """Return the recorded URIs, sorted, that are in `folders` but not in `seen`.

        `folders` are URIs: those that end with "/" are folders, others are files.
        """
        held = set(seen)
        found: set[str] = set()
        with self._reading() as connection:
            for some in batched(folders, 100):
                # Not LIKE, which ignores case on SQLite.
                below = [func.substr(SourceRow.uri, 1, len(uri)) == uri for uri in some if uri.endswith("/")]
                files = [uri for uri in some if not uri.endswith("/")]
                uris = connection.scalars(select(SourceRow.uri).where(or_(*below, SourceRow.uri.in_(files))))
                found.update(uri for uri in uris if uri not in held)
        return sorted(found)

    def failed_sources(self, uris: Iterable[str]) -> list[str]:
        """Return those of these URIs, sorted, whose image failed."""
        found: list[str] = []
        with self._reading() as connection:
            for some in batched(uris, AT_ONCE):
                query = select(SourceRow.uri).join(SourceRow.image)
                found += connection.scalars(query.where(SourceRow.uri.in_(some), ImageRow.state == FAILED))
        return sorted(found)

    def forget_lost_failures(self) -> int:
        """Delete failed images that have lost their last source, and return their number; not those a user removed.

        They have no description that could return with their file: as removed images they would puzzle people. To be
        called when no chunk is left to record that may refer to them.
        """
        lost = select(ImageRow.id).where(
            ImageRow.state == REMOVED,
            ImageRow.removed_at.is_(None),
            ImageRow.failure_reason != SHARD_LOST,  # false without a failure, too
            ~ImageRow.sources.any(),
        )
        with self._writing() as session:
            ids = session.scalars(lost).all()
            for some in batched(ids, AT_ONCE):
                session.execute(delete(PropertyRow).where(PropertyRow.image_id.in_(some)))
                session.execute(delete(ImageRow).where(ImageRow.id.in_(some)))
        return len(ids)

    def mark_vanished(self, vanished: Iterable[str], seen: Collection[str]) -> None:
        """Mark these sources as vanished, and those in `seen` as there; images show their living sources first.

        A source that is in both counts as vanished. It keeps the time at which it was first marked.
        """
        gone = set(vanished)
        with self._writing() as session:
            marked = session.scalars(select(SourceRow.uri).where(SourceRow.vanished_at.is_not(None)))
            for source in rows_of(session, SourceRow, SourceRow.uri, [uri for uri in marked if uri in seen]):
                if source.uri not in gone:
                    source.vanished_at = None
            for source in rows_of(session, SourceRow, SourceRow.uri, gone):
                source.vanished_at = source.vanished_at or now()

    def copies_elsewhere(self, seen: Collection[str]) -> list[str]:
        """Return the other sources of the images in `seen`, without those that are marked as vanished."""
        there = SourceRow.vanished_at.is_(None)
        several = select(SourceRow.image_id).where(there).group_by(SourceRow.image_id).having(func.count() > 1)
        query = select(SourceRow.image_id, SourceRow.uri).where(there, SourceRow.image_id.in_(several))
        found: list[str] = []
        with self._asking() as connection:
            rows = connection.execute(query.order_by(SourceRow.image_id, SourceRow.id))
            for _, group in groupby(rows, key=itemgetter(0)):
                uris = [uri for _, uri in group]
                others = [uri for uri in uris if uri not in seen]
                if len(others) < len(uris):
                    found += others
        return found

    def count_only_at(self, uris: Collection[str]) -> int:
        """Return the number of indexed images that have no source except these and vanished ones."""
        wanted = set(uris)
        lost: set[int] = set()
        with self._reading() as connection:
            for some in batched(wanted, AT_ONCE):
                query = select(SourceRow.image_id).join(SourceRow.image).where(SourceRow.uri.in_(some))
                ids = set(connection.scalars(query.where(ImageRow.state == INDEXED)))
                living = select(SourceRow.image_id, SourceRow.uri).where(SourceRow.vanished_at.is_(None))
                rows = connection.execute(living.where(SourceRow.image_id.in_(ids)))
                lost |= ids - {image_id for image_id, uri in rows if uri not in wanted}
        return len(lost)

    def forget_sources(self, uris: Sequence[str]) -> int:
        """Delete sources and return their number.

        An image without sources becomes removed until a run finds its content again; then it returns unchanged.
        """
        count = 0
        with self._writing() as session:
            for some in batched(uris, _IMAGES_AT_ONCE):
                sources = list(rows_of(session, SourceRow, SourceRow.uri, some))
                delete_sources(session, sources)
                count += len(sources)
        return count
