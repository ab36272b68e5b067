"""Record chunks that workers described elsewhere, as they would have become here."""

from collections.abc import Sequence
from dataclasses import replace

from indexer.catalog import Outcome
from indexer.cluster import Arrived
from indexer.collection import CollectionWriter, read_descriptions
from indexer.describe import Description
from indexer.describing import Describing
from indexer.errors import SourceUnavailable
from indexer.sources import is_remote


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
        late = {index for index, outcome in enumerate(arrived.outcomes) if self._is_known_by_now(outcome)}
        if not late:
            self._describing.on_batch(arrived.outcomes)
            self._writer.append_arrived(arrived.outcomes, arrived.shard)
            return
        # A worker described what a chunk before it, in another's hands, held too. Its batch is described again without.
        size = self._describing.pace.batch_size
        load = replace(self._describing.load, checksum=True)
        chunk = self._describing.empty()
        for start in range(0, len(arrived.outcomes), size):
            outcomes = arrived.outcomes[start : start + size]
            if late.isdisjoint(range(start, start + size)):
                chunk.adopt(outcomes, self._descriptions(arrived, outcomes))
            else:
                chunk.take([load(outcome.source) for outcome in outcomes])
        self._describing.on_batch(chunk.outcomes)
        self._writer.append(chunk.outcomes, chunk.descriptions)
        if arrived.shard is not None:
            self._writer.layout.discard(self._writer.layout.arriving / arrived.shard.file_name)

    def _descriptions(self, arrived: Arrived, outcomes: Sequence[Outcome]) -> list[Description]:
        """Return the descriptions of some outcomes of a chunk, in their order."""
        images = [outcome.image for outcome in outcomes if outcome.image is not None]
        rows = [image.shard_row for image in images if image.shard_row is not None]
        if arrived.shard is None or not rows:
            return []
        layout = self._writer.layout
        return [*read_descriptions(layout.fetch(layout.arriving / arrived.shard.file_name), rows)]

    def _is_known_by_now(self, outcome: Outcome) -> bool:
        content_hash = None if outcome.image is None else outcome.image.content_hash
        return content_hash is not None and self._describing.is_known(content_hash)

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
