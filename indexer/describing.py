"""Sources → chunks of what became of them, with descriptions: decoding threads ahead, one describing thread."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

from indexer.catalog import NewImage, Outcome, Source
from indexer.describe import Describer, Description
from indexer.images import DecodedImage
from indexer.metadata import Metadata
from indexer.reading import Known, Loaded, Loader, in_groups, map_ahead
from indexer.sources import shown

log = logging.getLogger(__name__)


@dataclass
class Chunk:
    """Outcomes and descriptions that will be kept together; `gone` are the URIs at which nothing is."""

    outcomes: list[Outcome] = field(default_factory=list)
    descriptions: list[Description] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)
    gone: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pace:
    """How many sources at once: described together, read at once (None: one a core), kept together."""

    batch_size: int
    workers: int | None
    chunk_sources: int


class Describing:
    """Describes sources, chunk by chunk; who asks for the next chunk has kept the one before in the catalogue.

    `on_counts` is told after each batch how many sources were described, failed, duplicates and unchanged.
    """

    def __init__(
        self,
        load: Loader,
        describer: Describer,
        pace: Pace,
        on_counts: Callable[[Mapping[str, int]], None] = lambda _: None,
    ) -> None:
        self._load = load
        self._known: Known = load.catalog
        self._describer = describer
        self._pace = pace
        self._on_counts = on_counts
        self._chunk = Chunk()

    def chunks(self, sources: Iterable[Source]) -> Generator[Chunk]:
        """Yield what became of the sources, in order, in chunks of `chunk_sources` or a batch more."""
        pace = self._pace
        with ThreadPoolExecutor(pace.workers or os.cpu_count(), "decode") as pool:
            # Two batches ahead keep the network fed and memory bounded; threads that were asked for are all used.
            ahead = max(2 * pace.batch_size, pace.workers or 0)
            changed = self._changed(map_ahead(pool, self._load, sources, ahead))
            for batch in in_groups(changed, pace.batch_size):
                self._take(batch)
                if len(self._chunk.outcomes) >= pace.chunk_sources:
                    yield self._finished()
        if self._chunk.outcomes:
            yield self._finished()

    def _finished(self) -> Chunk:
        chunk, self._chunk = self._chunk, Chunk()
        return chunk

    def _changed(self, loaded: Iterable[Loaded]) -> Iterator[Loaded]:
        for item in loaded:
            if item.unchanged:
                self._on_counts({"unchanged": 1})
            else:
                yield item

    def _take(self, batch: Sequence[Loaded]) -> None:
        fresh: dict[str, DecodedImage] = {}
        for item in batch:
            if item.decoded is not None and item.content_hash is not None and not self._is_known(item.content_hash):
                fresh.setdefault(item.content_hash, item.decoded)
        described = self._describer.describe([decoded.pixels for decoded in fresh.values()]) if fresh else []
        rows = dict(zip(fresh, count(len(self._chunk.descriptions)), strict=False))
        self._chunk.descriptions += described
        counts: Counter[str] = Counter()
        for item in batch:
            self._chunk.outcomes.append(self._outcome(item, rows, counts))
        self._on_counts(counts)

    def _is_known(self, content_hash: str) -> bool:
        """Tell whether the content is in this chunk or was kept since it was decoded."""
        return content_hash in self._chunk.hashes or self._known.has_content(
            content_hash, retry_failed=self._load.retry_failed
        )

    def _outcome(self, item: Loaded, rows: dict[str, int], counts: Counter[str]) -> Outcome:
        if item.error is not None:
            counts["failed"] += 1
            log.warning("failed source=%s reason=%s", shown(item.source.uri), item.error.reason)
            if item.gone:
                self._chunk.gone.append(item.source.uri)
            image = NewImage(
                item.content_hash,
                item.byte_count,
                failure_reason=item.error.reason,
                failure_message=str(item.error),
            )
            return Outcome(item.source, image=image)
        assert item.content_hash is not None
        row = rows.pop(item.content_hash, None)
        if row is None or item.decoded is None:
            known_here = self._known.content_of(item.source.uri) == item.content_hash
            counts["unchanged" if known_here else "duplicates"] += 1
            return Outcome(item.source, known_hash=item.content_hash, metadata=_of_exif(item))
        counts["described"] += 1
        self._chunk.hashes.add(item.content_hash)
        decoded = item.decoded
        image = NewImage(item.content_hash, item.byte_count, decoded.width, decoded.height, decoded.mime_type, row)
        return Outcome(item.source, image=image, metadata=_of_exif(item))


def _of_exif(item: Loaded) -> dict[str, Metadata]:
    """Return what is kept with the image, in one transaction: a later run does not read the picture again."""
    return {} if item.exif is None else {"exif": item.exif}
