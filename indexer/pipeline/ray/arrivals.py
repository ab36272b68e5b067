"""Record chunks from workers with the same result as if this process had described them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from whatwhere.indexer.catalog.records import Outcome, Source
from whatwhere.indexer.collection.shards import read_descriptions
from whatwhere.indexer.collection.writer import CollectionWriter
from whatwhere.indexer.errors import SourceUnavailable
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.pipeline.loading import Loaded
from whatwhere.indexer.pipeline.ray.work import Arrived
from whatwhere.indexer.sources.uris import is_remote


class Arrivals:
    """Records chunks in their order. `load` and `is_known` are as for descriptions in this process."""

    def __init__(
        self, writer: CollectionWriter, load: Callable[[Source], Loaded], is_known: Callable[[str], bool]
    ) -> None:
        self._writer = writer
        self._load = load
        self._is_known = is_known

    def outcomes(self, arrived: Arrived) -> list[Outcome]:
        """Return the outcomes that the chunk would have in this process after all chunks before it.

        Raises SourceUnavailable if the worker could not read a file that this process can read.
        """
        self._require_shared_files(arrived)
        return [self._as_known_by_now(outcome) for outcome in arrived.outcomes]

    def record(self, arrived: Arrived, outcomes: Sequence[Outcome]) -> None:
        """Record a chunk with these outcomes, and with the shard that the worker wrote if they are the worker's own."""
        if outcomes == [*arrived.outcomes]:
            self._writer.append_arrived(outcomes, arrived.shard)
            return
        # The worker described contents that an earlier chunk of another worker had, too.
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
        """Return the outcome of a source whose content may have been recorded since the worker asked."""
        content_hash = None if outcome.image is None else outcome.image.content_hash
        if content_hash is None or not self._is_known(content_hash):
            return outcome
        return Outcome(outcome.source, known_hash=content_hash, metadata=outcome.metadata)

    def _require_shared_files(self, arrived: Arrived) -> None:
        for outcome in arrived.outcomes:
            uri = outcome.source.uri
            unreadable = outcome.image is not None and outcome.image.content_hash is None and not is_remote(uri)
            if unreadable and self._load(outcome.source).content_hash is not None:
                raise SourceUnavailable(
                    f"{uri} can be read here but not on {arrived.host}: the photographs must have the same path on all "
                    "machines"
                )


def _with_row(outcome: Outcome, moved: Mapping[int, int]) -> Outcome:
    """Return the outcome with the row of its description in the new shard."""
    if outcome.image is None or outcome.image.shard_row is None:
        return outcome
    return replace(outcome, image=replace(outcome.image, shard_row=moved[outcome.image.shard_row]))
