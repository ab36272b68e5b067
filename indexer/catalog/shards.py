"""Record which shard contains which image, for compaction and for lost shards."""

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.metadata import write_properties
from whatwhere.indexer.catalog.records import FAILED, INDEXED, REMOVED, SHARD_LOST, ShardRecord
from whatwhere.indexer.catalog.rows import rows_of
from whatwhere.indexer.catalog.runs import add_shard
from whatwhere.indexer.catalog.tables import ImageRow, ShardRow, SourceRow
from whatwhere.indexer.errors import CollectionMismatch

_AT_ONCE = 2000  # images in memory at a time


class ShardTable(Database):
    """Replaced and lost shards."""

    def replace_shards(self, old: Sequence[int], new: Sequence[tuple[ShardRecord, Sequence[tuple[int, int]]]]) -> None:
        """Replace the shards with the ids `old` by `new` ones with their images as (id, row), in one transaction.

        Removed images lose their place in the old shards, their sources and their metadata. Those that a user removed
        keep their content hash and time, so that they stay removed; the others also lose their content hash. Raises
        CollectionMismatch if an image that is not removed would lose its description.
        """
        with self._writing() as session:
            for shard, places in new:
                row = add_shard(session, shard)
                _move(session, row, places)
            for some in batched(old, _AT_ONCE):
                _forget_removed(session, some)
            left = session.scalar(select(ImageRow.id).where(ImageRow.shard_id.in_(old)).limit(1))
            if left is not None:
                raise CollectionMismatch(f"images/{left} is in no new shard: compact again, nothing was changed")
            session.execute(delete(ShardRow).where(ShardRow.id.in_(old)))

    def lose_shard(self, file_name: str) -> list[str]:
        """Record that a shard is lost: its images fail with the reason SHARD_LOST and keep ids and content hashes.

        The next run describes them again. Return their URIs, an empty list for an unknown file.
        """
        uris: list[str] = []
        with self._writing() as session:
            shard = session.scalar(select(ShardRow).where(ShardRow.file_name == file_name))
            if shard is None:
                return []
            for image in session.scalars(select(ImageRow).where(ImageRow.shard_id == shard.id).order_by(ImageRow.id)):
                image.shard, image.shard_row = None, None
                if image.state == INDEXED:
                    image.state, image.failure_reason = FAILED, SHARD_LOST
                    image.failure_message = (
                        f"shard {file_name} with its description is lost: run `whatwhere index` again"
                    )
                    uris += (source.uri for source in image.sources)
            session.flush()
            session.delete(shard)
        return uris


def _move(session: Session, shard: ShardRow, places: Sequence[tuple[int, int]]) -> None:
    for some in batched(places, _AT_ONCE):
        rows = dict(some)
        for image in rows_of(session, ImageRow, ImageRow.id, rows):
            image.shard, image.shard_row = shard, rows[image.id]
        session.flush()
        session.expire_all()


def _forget_removed(session: Session, shards: Sequence[int]) -> None:
    """Delete all data of removed images in these shards, and of failed ones; they stay removed."""
    gone = or_(ImageRow.shard_id.in_(shards), ImageRow.failure_reason.is_not(None))
    ids = list(session.scalars(select(ImageRow.id).where(ImageRow.state == REMOVED, gone)))
    for some in batched(ids, _AT_ONCE):
        session.execute(delete(SourceRow).where(SourceRow.image_id.in_(some)))
        images = list(rows_of(session, ImageRow, ImageRow.id, some))
        _forget(images)
        write_properties(session, images)
        session.flush()


def _forget(images: Iterable[ImageRow]) -> None:
    for image in images:
        image.shard, image.shard_row, image.user_metadata = None, None, {}
        if image.removed_at is None:
            image.content_hash = None
