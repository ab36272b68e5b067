"""Queries of the catalog: they return dataclasses and arrays; each row is verified first."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.checksums import verify
from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.records import FAILED, INDEXED, REMOVED, SHARD_LOST, ImageRecord, ShardRecord, Source
from whatwhere.indexer.catalog.records_from_rows import ROWS, ROWS_OF_IDS, records
from whatwhere.indexer.catalog.rows import AT_ONCE
from whatwhere.indexer.catalog.tables import Base, GenerationRow, ImageRow, ShardRow, SourceRow

_IMAGES, _SHARDS = (Base.metadata.tables[row.__tablename__] for row in (ImageRow, ShardRow))
# Finished content: described, failed for a reason in the file itself, or removed by a user.
_DONE = or_(
    ImageRow.removed_at.is_not(None),
    and_(ImageRow.failure_reason.is_(None), ImageRow.shard_id.is_not(None)),
    and_(ImageRow.failure_reason.is_not(None), ImageRow.failure_reason != SHARD_LOST),
)
_NEVER_RETRIED = or_(ImageRow.removed_at.is_not(None), ImageRow.failure_reason.is_(None))


def _done(retry_failed: bool) -> ColumnElement[bool]:
    return and_(_DONE, _NEVER_RETRIED) if retry_failed else _DONE


class Queries(Database):
    """Images, shards, sources and generations by id, content, URI or state."""

    def unchanged(self, sources: Sequence[Source], *, retry_failed: bool = False) -> set[str]:
        """Return the URIs whose byte count and modification time are as recorded and that need no retry.

        Images that lost their description are always retried, failed ones only with `retry_failed`, images that a user
        removed never.
        """
        query = (
            select(SourceRow.uri, SourceRow.byte_count, SourceRow.modified_ns)
            .join(SourceRow.image)
            .where(
                SourceRow.uri.in_([source.uri for source in sources]),
                ImageRow.content_hash.is_not(None),
                _done(retry_failed),
            )
        )
        with self._asking() as connection:
            recorded = {Source(*row) for row in connection.execute(query)}
        return {source.uri for source in sources if source in recorded}

    def unreadable(self, sources: Sequence[Source]) -> set[str]:
        """Return the recorded URIs whose content could not be read yet."""
        query = (
            select(SourceRow.uri)
            .join(SourceRow.image)
            .where(SourceRow.uri.in_([source.uri for source in sources]), ImageRow.content_hash.is_(None))
        )
        with self._asking() as connection:
            return set(connection.scalars(query))

    def content_of(self, uri: str) -> str | None:
        """Return the SHA-256 of the content last read at a URI, None without any."""
        query = select(ImageRow.content_hash).join(ImageRow.sources).where(SourceRow.uri == uri)
        with self._asking() as connection:
            return connection.scalar(query)

    def has_content(self, content_hash: str, *, retry_failed: bool = False) -> bool:
        """Tell whether this content is recorded and needs no description, by the rules of `unchanged`."""
        query = select(ImageRow.id).where(ImageRow.content_hash == content_hash, _done(retry_failed))
        with self._asking() as connection:
            return connection.scalar(query) is not None

    def failures(self, content_hashes: Sequence[str]) -> dict[str, str]:
        """Return the reasons of those of these contents that failed, by content, without those that a user removed."""
        query = select(ImageRow.content_hash, ImageRow.failure_reason).where(
            ImageRow.content_hash.in_(content_hashes),
            ImageRow.failure_reason.is_not(None),
            ImageRow.removed_at.is_(None),
        )
        if not content_hashes:
            return {}
        with self._asking() as connection:
            return {str(content): str(reason) for content, reason in connection.execute(query)}

    def id_of_content(self, content_hash: str) -> int | None:
        """Return the id of the indexed image with this content, or None."""
        query = select(ImageRow.id).where(ImageRow.content_hash == content_hash, ImageRow.state == INDEXED)
        with self._asking() as connection:
            return connection.scalar(query)

    def image(self, image_id: int) -> ImageRecord | None:
        """Return one image in any state, or None. Raises CollectionCorrupt if a row does not match its checksum."""
        return self.images_by_id([image_id]).get(image_id)

    def images(self, *, state: str | None = None, after_id: int = 0, limit: int | None = None) -> list[ImageRecord]:
        """Return images with ids above `after_id`, ordered by id, in one state or all. Raises as `image` does."""
        ids = select(ImageRow.id).where(ImageRow.id > after_id).order_by(ImageRow.id).limit(limit)
        if state is not None:
            ids = ids.where(ImageRow.state == state)
        with self._asking() as connection:
            return list(records(connection.execute(ROWS.where(_IMAGES.c.id.in_(ids))).all()))

    def images_by_id(self, ids: Iterable[int]) -> dict[int, ImageRecord]:
        """Return these images by id, in any state; unknown ids are skipped. Raises as `image` does."""
        found: dict[int, ImageRecord] = {}
        groups = list(batched(ids, AT_ONCE))
        with self._asking() if len(groups) <= 1 else self._reading() as connection:
            for some in groups:
                rows = connection.execute(ROWS_OF_IDS, {"ids": some}).all()
                found.update((record.id, record) for record in records(rows))
        return found

    def indexed_ids(self) -> NDArray[np.int64]:
        """Return the ids [N] (int64, sorted) of all indexed images."""
        query = select(ImageRow.id).where(ImageRow.state == INDEXED).order_by(ImageRow.id)
        with self._asking() as connection:
            return np.fromiter(connection.scalars(query), dtype=np.int64)

    def max_id(self) -> int:
        """Return the highest id of an image in any state, 0 for an empty catalog."""
        with self._asking() as connection:
            return connection.scalar(select(func.max(ImageRow.id))) or 0

    def places(self, ids: Sequence[int]) -> list[tuple[int, str, int]]:
        """Return (id, shard file, row) of these described images, ordered by shard and row. Raises as `image` does."""
        found: list[Any] = []
        with self._reading() as connection:
            for some in batched(ids, AT_ONCE):
                found += map(_verified, connection.execute(_places().where(ImageRow.id.in_(some))))
        found.sort(key=lambda row: (row.shard_id, row.shard_row))
        return [(row.id, row.file_name, row.shard_row) for row in found]

    def live_places(self) -> list[tuple[int, int, str, int]]:
        """Return (id, shard id, shard file, row) of all indexed images, ordered by shard and row.

        Raises as `image` does.
        """
        query = _places().where(ImageRow.state == INDEXED)
        with self._asking() as connection:
            rows = map(_verified, connection.execute(query))
            return [(row.id, row.shard_id, row.file_name, row.shard_row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Return the number of images in each state."""
        query = select(ImageRow.state, func.count()).group_by(ImageRow.state)
        with self._asking() as connection:
            found = {state: count for state, count in connection.execute(query)}  # noqa: C416 - mypy does not see a row as a pair
        return {state: found.get(state, 0) for state in (INDEXED, FAILED, REMOVED)}

    def shards(self) -> list[ShardRecord]:
        """Return all shards, oldest first. Raises as `image` does."""
        with self._asking() as connection:
            return [_to_shard(row) for row in connection.execute(select(_SHARDS).order_by(_SHARDS.c.id))]

    def last_generation(self) -> int:
        """Return the number of the newest recorded generation, 0 without any."""
        with self._asking() as connection:
            return connection.scalar(select(func.max(GenerationRow.number))) or 0


def _places() -> Select[Any]:
    return select(*_IMAGES.c, ShardRow.file_name).join(ImageRow.shard).order_by(ShardRow.id, ImageRow.shard_row)


def _verified(row: Any) -> Any:
    values = row._asdict()
    values.pop("file_name")
    verify(_IMAGES, values)
    return row


def _to_shard(row: Any) -> ShardRecord:
    verify(_SHARDS, row._asdict())
    return ShardRecord(row.file_name, row.image_count, row.byte_count, row.sha256, row.id)
