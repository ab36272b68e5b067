"""What a person, or the disk, takes out of the collection."""

from collections.abc import Iterable, Sequence

from sqlalchemy import func, or_, select

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.metadata import refresh
from whatwhere.indexer.catalog.records import REMOVED
from whatwhere.indexer.catalog.rows import rows_of
from whatwhere.indexer.catalog.runs import state_of
from whatwhere.indexer.catalog.tables import ImageRow, SourceRow, now

_IMAGES_AT_ONCE = 10_000


class RemovalTable(Database):
    """Removal by people, which stays, and of what is gone from the disk, which does not."""

    def remove(self, ids: Sequence[int]) -> int:
        """Remove images for good: no later run brings them back, nor another file of the same content.

        Return how many were removed: those that a person had removed before and unknown ids do not count.
        """
        with self._writing() as session:
            found = [row for row in rows_of(session, ImageRow, ImageRow.id, ids) if row.removed_at is None]
            for image in found:
                image.state, image.removed_at = REMOVED, now()
        return len(found)

    def restore(self, ids: Sequence[int]) -> int:
        """Undo `remove` and return how many images that was.

        They are indexed, or failed, as before; one whose description or last source is gone meanwhile stays removed
        until a run finds its content: it comes back under the same id, described again where it must be.
        """
        with self._writing() as session:
            found = [row for row in rows_of(session, ImageRow, ImageRow.id, ids) if row.removed_at is not None]
            for image in found:
                image.removed_at = None
                image.state = state_of(image) if image.sources else REMOVED
        return len(found)

    def vanished(self, folders: Sequence[str], seen: Iterable[str]) -> list[str]:
        """Return the recorded URIs, sorted, that are not `seen` and lie in one of the folders, or are one of the files.

        `folders` are URIs: those that end with "/" are folders, others files.
        """
        held = set(seen)
        found: set[str] = set()
        with self._reading() as connection:
            for some in batched(folders, 100):
                # Not LIKE, to which on SQLite capitals are small letters.
                below = [func.substr(SourceRow.uri, 1, len(uri)) == uri for uri in some if uri.endswith("/")]
                files = [uri for uri in some if not uri.endswith("/")]
                uris = connection.scalars(select(SourceRow.uri).where(or_(*below, SourceRow.uri.in_(files))))
                found.update(uri for uri in uris if uri not in held)
        return sorted(found)

    def forget_sources(self, uris: Sequence[str]) -> int:
        """Delete sources and return how many there were.

        An image left without any is removed, until a run finds its content again: then it comes back as it was.
        """
        count = 0
        with self._writing() as session:
            for some in batched(uris, _IMAGES_AT_ONCE):
                sources = list(rows_of(session, SourceRow, SourceRow.uri, some))
                images = list(rows_of(session, ImageRow, ImageRow.id, {source.image_id for source in sources}))
                for source in sources:
                    source.image.sources.remove(source)
                    session.delete(source)
                for image in images:
                    if not image.sources:
                        image.state = REMOVED
                refresh(session, images)
                count += len(sources)
        return count
