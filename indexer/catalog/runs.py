"""Record indexing runs: their start and end, their chunks and the generation they published."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from whatwhere.indexer.catalog.database import Database
from whatwhere.indexer.catalog.metadata import checked_origins, refresh, with_origins
from whatwhere.indexer.catalog.records import FAILED, INDEXED, REMOVED, NewImage, Outcome, ShardRecord
from whatwhere.indexer.catalog.rows import rows_of
from whatwhere.indexer.catalog.tables import GenerationRow, ImageRow, RunRow, ShardRow, SourceRow, now
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.storage.readable import readable_if_other


class RunTable(Database):
    """Runs, their chunks and generations."""

    def start_run(self) -> int:
        """Record the start of a run and return its id."""
        with self._writing() as session:
            run = RunRow()
            session.add(run)
            session.flush()
            return run.id

    def finish_run(self, run_id: int, summary: Mapping[str, Any]) -> None:
        """Record the end of a run."""
        with self._writing() as session:
            run = session.get_one(RunRow, run_id)
            run.finished_at, run.summary = now(), dict(summary)

    def record_generation(self, number: int, image_count: int) -> None:
        """Record a published generation."""
        with self._writing() as session:
            session.merge(GenerationRow(number=number, image_count=image_count))

    def record_chunk(self, outcomes: Sequence[Outcome], shard: ShardRecord | None) -> None:
        """Record the outcomes of sources, in order, and the shard with their descriptions, in one transaction.

        A source with new content moves to that image. An image without sources becomes removed, until its content is
        found again; an image that a user removed stays removed. Raises InvalidRequest if a URI contains NUL.
        """
        with self._writing() as session:
            shard_row = None if shard is None else add_shard(session, shard)
            chunk = _Chunk(session, outcomes, shard_row, self._backend.new_image_id)
            for outcome in outcomes:
                chunk.record(outcome)
            chunk.finish()


class _Chunk:
    """The rows that the outcomes of one transaction refer to, loaded in advance by a few queries."""

    def __init__(
        self,
        session: Session,
        outcomes: Sequence[Outcome],
        shard: ShardRow | None,
        new_id: Callable[[Session], int | None],
    ) -> None:
        self._session = session
        self._shard = shard
        self._new_id = new_id
        uris = {outcome.source.uri for outcome in outcomes}
        hashes = {found for outcome in outcomes if (found := _content_hash(outcome)) is not None}
        self._sources = {row.uri: row for row in rows_of(session, SourceRow, SourceRow.uri, uris)}
        held = {row.image_id for row in self._sources.values()}
        self._previous = list(rows_of(session, ImageRow, ImageRow.id, held))  # the session holds only weak references
        self._images: dict[str | None, ImageRow] = {
            row.content_hash: row for row in rows_of(session, ImageRow, ImageRow.content_hash, hashes)
        }
        self._touched: dict[ImageRow, None] = {}

    def record(self, outcome: Outcome) -> None:
        """Link the source of an outcome to its image."""
        if "\0" in outcome.source.uri:
            raise InvalidRequest(f"{outcome.source.uri!r} contains NUL, which PostgreSQL does not accept: write %00")
        origins = checked_origins(outcome.metadata)
        source = self._sources.get(outcome.source.uri)
        previous = source.image if source is not None else None
        unreadable = outcome.image is not None and outcome.image.content_hash is None
        if unreadable and previous is not None and previous.content_hash is not None:
            return  # an unreadable file (permissions, network) keeps the content that was read before
        image = self._image_of(outcome, previous)
        if source is None:
            source = self._sources[outcome.source.uri] = _new_source(outcome.source.uri)
            self._session.add(source)
        elif previous is not image:
            source.origins = with_origins(source.origins, {"exif": None})  # it was part of the old content
        source.image = image
        source.origins = with_origins(source.origins, origins)
        source.byte_count, source.modified_ns = outcome.source.byte_count, outcome.source.modified_ns
        source.vanished_at = None
        self._touched |= dict.fromkeys(touched for touched in (previous, image) if touched is not None)

    def finish(self) -> None:
        """Mark images without sources as removed and update the metadata of all changed images."""
        self._session.flush()
        for image in self._touched:
            if not image.sources:
                image.state = REMOVED
        refresh(self._session, self._touched)

    def _image_of(self, outcome: Outcome, previous: ImageRow | None) -> ImageRow:
        content_hash = _content_hash(outcome)
        image = None
        if content_hash is not None:
            image = self._images.get(content_hash)
        elif previous is not None and previous.content_hash is None:
            image = previous  # still unreadable
        if image is None:
            image = ImageRow(id=self._new_id(self._session), user_metadata={})
            self._session.add(image)
            if content_hash is not None:
                self._images[content_hash] = image
        if outcome.image is not None:
            _fill(image, outcome.image, self._shard)
        elif image.state == REMOVED:
            image.state = state_of(image)
        return image


def _new_source(uri: str) -> SourceRow:
    return SourceRow(uri=uri, readable_uri=readable_if_other(uri), origins={})


def _content_hash(outcome: Outcome) -> str | None:
    return outcome.known_hash or (outcome.image.content_hash if outcome.image else None)


def add_shard(session: Session, shard: ShardRecord) -> ShardRow:
    """Insert a row for a shard and return it with its id."""
    row = ShardRow(**{name: value for name, value in vars(shard).items() if name != "id"})
    session.add(row)
    session.flush()
    return row


def state_of(image: ImageRow) -> str:
    """Return the state of an image with sources."""
    if image.removed_at is not None:
        return REMOVED
    if image.failure_reason is not None:
        return FAILED
    # If a compaction deleted its description, the next run describes it again.
    return INDEXED if image.shard is not None else REMOVED


def _fill(image: ImageRow, new: NewImage, shard: ShardRow | None) -> None:
    for name in (
        "content_hash",
        "byte_count",
        "width",
        "height",
        "mime_type",
        "shard_row",
        "failure_reason",
        "failure_message",
    ):
        setattr(image, name, getattr(new, name))
    if new.failure_message is not None:
        image.failure_message = new.failure_message.replace("\0", "\\0")  # PostgreSQL does not accept it
    image.shard = shard if new.shard_row is not None else None
    image.state = state_of(image)
