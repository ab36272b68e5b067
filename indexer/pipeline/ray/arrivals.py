"""Record chunks that workers described elsewhere, as they would have become here."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from whatwhere.indexer.catalog.records import Outcome
from whatwhere.indexer.collection.shards import read_descriptions
from whatwhere.indexer.collection.writer import CollectionWriter
from whatwhere.indexer.errors import SourceUnavailable
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.pipeline.chunks import Describing
from whatwhere.indexer.pipeline.ray.work import Arrived
from whatwhere.indexer.sources.uris import is_remote


class Arrivals:
    """Takes chunks in their order. `describing` is how this process would describe them, and who counts what became."""

    def __init__(self, writer: CollectionWriter, describing: Describing) -> None:
        self._writer = writer
        self._describing = describing

    def record(self, arrived: Arrived) -> None:
        """Record a chunk from a worker, as it would have become here after all chunks before it."""
        self._refuse_what_only_is_here(arrived)
        for _ in range(arrived.unchanged):
            self._describing.on_unchanged()
        outcomes = [self._as_known_by_now(outcome) for outcome in arrived.outcomes]
        self._describing.on_batch(outcomes)
        if outcomes == [*arrived.outcomes]:
            self._writer.append_arrived(outcomes, arrived.shard)
            return
        # A worker described what a chunk before it, in another's hands, held too.
        images = [outcome.image for outcome in outcomes if outcome.image is not None]
        rows = [image.shard_row for image in images if image.shard_row is not None]
        moved = {row: place for place, row in enumerate(rows)}
        self._writer.append([_with_row(outcome, moved) for outcome in outcomes], self._descriptions(arrived, rows))
        if arrived.shard is not None:
            self._writer.layout.discard(self._writer.layout.arriving / arrived.shard.file_name)

    def _descriptions(self, arrived: Arrived, rows: Sequence[int]) -> list[Description]:
        layout = self._writer.layout
        if arrived.shard is None or not rows:
            return []
        return [*read_descriptions(layout.fetch(layout.arriving / arrived.shard.file_name), rows)]

    def _as_known_by_now(self, outcome: Outcome) -> Outcome:
        """Return what becomes of a source whose content may have been recorded since a worker looked."""
        content_hash = None if outcome.image is None else outcome.image.content_hash
        if content_hash is None or not self._describing.is_known(content_hash):
            return outcome
        return Outcome(outcome.source, known_hash=content_hash, metadata=outcome.metadata)

    def _refuse_what_only_is_here(self, arrived: Arrived) -> None:
        """Raise SourceUnavailable where a worker could not read a file that this process can."""
        for outcome in arrived.outcomes:
            uri = outcome.source.uri
            unreadable = outcome.image is not None and outcome.image.content_hash is None and not is_remote(uri)
            if unreadable and self._describing.load(outcome.source).content_hash is not None:
                raise SourceUnavailable(
                    f"{uri} can be read here but not on {arrived.host}: the photographs must lie where all machines "
                    "find them by the same name"
                )


def _with_row(outcome: Outcome, moved: Mapping[int, int]) -> Outcome:
    """Return the outcome with its description's row in another shard."""
    if outcome.image is None or outcome.image.shard_row is None:
        return outcome
    return replace(outcome, image=replace(outcome.image, shard_row=moved[outcome.image.shard_row]))
