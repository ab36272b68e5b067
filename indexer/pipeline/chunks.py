"""Describe sources chunk by chunk: threads read and decode ahead, one thread runs the network."""

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count

from whatwhere.indexer.catalog.records import NewImage, Outcome, Source
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.images.decode import DecodedImage
from whatwhere.indexer.metadata.values import Metadata
from whatwhere.indexer.pipeline.loading import Loaded, map_ahead
from whatwhere.indexer.sources.uris import shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChunkSizes:
    """Number of sources that are described together, read at once and recorded together."""

    batch_size: int
    workers: int | None  # reading threads; None: one per core
    chunk_sources: int


@dataclass(frozen=True)
class Batch:
    """Result of one batch: its outcomes, which are not recorded yet.

    `unchanged` counts the sources since the previous batch that need no reading. `gone` lists the URIs of missing
    files.
    """

    outcomes: Sequence[Outcome]
    unchanged: int = 0
    gone: Sequence[str] = ()


@dataclass(frozen=True)
class Chunk:
    """Outcomes of consecutive batches, and the descriptions that their shard rows refer to: one shard."""

    outcomes: Sequence[Outcome] = ()
    descriptions: Sequence[Description] = ()


def describe_sources(
    sources: Iterable[Source],
    load: Callable[[Source], Loaded],
    describer: Describer,
    sizes: ChunkSizes,
    is_known: Callable[[str], bool] = lambda _: False,
) -> Generator[Batch | Chunk]:
    """Yield a Batch for every batch of sources, in order, and a Chunk after the batch that completes it.

    A chunk has `chunk_sources` sources or up to a batch more; the last one has the rest. The caller records a chunk
    before it asks for the next event. Contents for which `is_known` returns true are not described.
    """
    chunk = _OpenChunk(describer, is_known)
    with closing(_loaded_batches(sources, load, sizes)) as batches:
        for loaded, unchanged in batches:
            yield Batch(chunk.add(loaded), unchanged, [item.source.uri for item in loaded if item.gone])
            if len(chunk.outcomes) >= sizes.chunk_sources:
                yield chunk.complete()
                chunk = _OpenChunk(describer, is_known)
    if chunk.outcomes:
        yield chunk.complete()


def described_hash(outcome: Outcome) -> str | None:
    """Return the content hash if the outcome has its own description, else None."""
    return None if outcome.image is None or outcome.image.shard_row is None else outcome.image.content_hash


def _loaded_batches(
    sources: Iterable[Source], load: Callable[[Source], Loaded], sizes: ChunkSizes
) -> Generator[tuple[list[Loaded], int]]:
    """Yield batches of changed sources, each with the number of unchanged ones since the previous batch."""
    # Two batches ahead keep the network busy and bound the memory; a larger number of threads is used fully.
    ahead = max(2 * sizes.batch_size, sizes.workers or 0)
    batch: list[Loaded] = []
    unchanged = 0
    with ThreadPoolExecutor(sizes.workers or available_cores(), "decode") as pool:
        for item in map_ahead(pool, load, sources, ahead):
            if item.unchanged:
                unchanged += 1
            else:
                batch.append(item)
            if len(batch) == sizes.batch_size:
                yield batch, unchanged
                batch, unchanged = [], 0
        if batch or unchanged:
            yield batch, unchanged


class _OpenChunk:
    """A chunk that is being filled.

    Images are described in the batches in which they arrive, except contents that are recorded already or are in this
    chunk. On a GPU, but not on a CPU, the last bits of a description depend on the other images of its batch.
    """

    def __init__(self, describer: Describer, is_known: Callable[[str], bool]) -> None:
        self._describer = describer
        self._is_known = is_known
        self.outcomes: list[Outcome] = []
        self._descriptions: list[Description] = []
        self._hashes: set[str] = set()

    def add(self, batch: Sequence[Loaded]) -> list[Outcome]:
        """Describe the new contents of a batch and return the outcome of each source."""
        fresh: dict[str, DecodedImage] = {}
        for item in batch:
            if item.decoded is not None and item.content_hash is not None and not self._knows(item.content_hash):
                fresh.setdefault(item.content_hash, item.decoded)
        described = self._describer.describe([decoded.pixels for decoded in fresh.values()]) if fresh else []
        rows = dict(zip(fresh, count(len(self._descriptions)), strict=False))
        outcomes = [_outcome(item, rows) for item in batch]
        self.outcomes += outcomes
        self._descriptions += described
        self._hashes |= {hash_ for outcome in outcomes if (hash_ := described_hash(outcome)) is not None}
        return outcomes

    def complete(self) -> Chunk:
        """Return the chunk as it is now."""
        return Chunk(self.outcomes, self._descriptions)

    def _knows(self, content_hash: str) -> bool:
        return content_hash in self._hashes or self._is_known(content_hash)


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
        return Outcome(item.source, known_hash=item.content_hash, metadata=_exif_metadata(item))
    decoded = item.decoded
    image = NewImage(
        item.content_hash,
        item.byte_count,
        decoded.width,
        decoded.height,
        decoded.mime_type,
        row,
        failure_message=_truncation(decoded),
    )
    return Outcome(item.source, image=image, metadata=_exif_metadata(item))


def _truncation(decoded: DecodedImage) -> str | None:
    """Say how much a truncated file lacks."""
    missing = decoded.missing_rows
    if missing is None:
        return None
    return f"truncated: {missing:.1%} of its rows are missing" if missing else "truncated: its end is missing"


def _exif_metadata(item: Loaded) -> dict[str, Metadata]:
    """Return EXIF metadata to record with the image, in one transaction: a later run does not read the file again."""
    return {} if item.exif is None else {"exif": item.exif}
