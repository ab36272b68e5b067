"""Sources → chunks of what became of them, with descriptions: decoding threads ahead, one describing thread."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

from whatwhere.indexer.catalog.records import NewImage, Outcome, Source
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.features.describe import Describer, Description
from whatwhere.indexer.images.decode import DecodedImage
from whatwhere.indexer.metadata.values import Metadata
from whatwhere.indexer.pipeline.loading import Loaded, Loader, in_groups, map_ahead
from whatwhere.indexer.sources.uris import shown

log = logging.getLogger(__name__)


@dataclass
class Chunk:
    """Outcomes of consecutive sources, and the descriptions whose rows they name: kept together, in one shard.

    Pictures are described in the batches that they are taken in, without what is known already: by `is_known`, or by
    this chunk. On a GPU, but not on a CPU, the last bits of a description depend on the others of its batch. `gone` are
    the URIs at which nothing is.
    """

    describer: Describer
    is_known: Callable[[str], bool]
    outcomes: list[Outcome] = field(default_factory=list)
    descriptions: list[Description] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)
    gone: list[str] = field(default_factory=list)

    def take(self, batch: Sequence[Loaded]) -> list[Outcome]:
        """Describe what is new in a batch; return what became of each of its sources."""
        fresh: dict[str, DecodedImage] = {}
        for item in batch:
            if item.decoded is not None and item.content_hash is not None and not self._knows(item.content_hash):
                fresh.setdefault(item.content_hash, item.decoded)
        described = self.describer.describe([decoded.pixels for decoded in fresh.values()]) if fresh else []
        rows = dict(zip(fresh, count(len(self.descriptions)), strict=False))
        outcomes = [_outcome(item, rows) for item in batch]
        self.gone += (item.source.uri for item in batch if item.gone)
        self.outcomes += outcomes
        self.descriptions += described
        self.hashes |= {hash_ for outcome in outcomes if (hash_ := described_hash(outcome)) is not None}
        return outcomes

    def _knows(self, content_hash: str) -> bool:
        return content_hash in self.hashes or self.is_known(content_hash)


def described_hash(outcome: Outcome) -> str | None:
    """Return the content hash of an outcome with a description of its own, else None."""
    return None if outcome.image is None or outcome.image.shard_row is None else outcome.image.content_hash


@dataclass(frozen=True)
class Pace:
    """How many sources at once: described together, read at once (None: one a core), kept together."""

    batch_size: int
    workers: int | None
    chunk_sources: int


@dataclass(frozen=True)
class Describing:
    """Describes sources, chunk by chunk; who asks for the next chunk has kept the one before in the catalogue.

    `is_known` tells of content whether it needs no describing by now. `on_batch` is told after each batch what became
    of its sources, `on_unchanged` of each source of which nothing had to be read.
    """

    load: Loader
    describer: Describer
    pace: Pace
    is_known: Callable[[str], bool]
    on_batch: Callable[[Sequence[Outcome]], None] = lambda _: None
    on_unchanged: Callable[[], None] = lambda: None

    def chunks(self, sources: Iterable[Source]) -> Generator[Chunk]:
        """Yield what became of the sources, in order, in chunks of `chunk_sources` or a batch more."""
        pace = self.pace
        chunk = self.empty()
        with ThreadPoolExecutor(pace.workers or available_cores(), "decode") as pool:
            # Two batches ahead keep the network fed and memory bounded; threads that were asked for are all used.
            ahead = max(2 * pace.batch_size, pace.workers or 0)
            changed = self._changed(map_ahead(pool, self.load, sources, ahead))
            for batch in in_groups(changed, pace.batch_size):
                self.on_batch(chunk.take(batch))
                if len(chunk.outcomes) >= pace.chunk_sources:
                    yield chunk
                    chunk = self.empty()
        if chunk.outcomes:
            yield chunk

    def empty(self) -> Chunk:
        """Return a chunk to fill."""
        return Chunk(self.describer, self.is_known)

    def _changed(self, loaded: Iterable[Loaded]) -> Iterator[Loaded]:
        for item in loaded:
            if item.unchanged:
                self.on_unchanged()
            else:
                yield item


def _outcome(item: Loaded, rows: dict[str, int]) -> Outcome:
    if item.error is not None:
        log.warning("failed source=%s reason=%s", shown(item.source.uri), item.error.reason)
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
        return Outcome(item.source, known_hash=item.content_hash, metadata=_of_exif(item))
    decoded = item.decoded
    image = NewImage(item.content_hash, item.byte_count, decoded.width, decoded.height, decoded.mime_type, row)
    return Outcome(item.source, image=image, metadata=_of_exif(item))


def _of_exif(item: Loaded) -> dict[str, Metadata]:
    """Return what is kept with the image, in one transaction: a later run does not read the picture again."""
    return {} if item.exif is None else {"exif": item.exif}
