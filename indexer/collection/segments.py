"""Plan and write the vector files (segments) of a generation, and reuse those of the previous one."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.shards import read_descriptions
from whatwhere.indexer.errors import CollectionCorrupt, InvalidRequest
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.storage.files import reserve, sha256_of
from whatwhere.indexer.vectors.arrays import Ids, Vectors, map_vectors
from whatwhere.indexer.vectors.factories import factory_for, is_lossless
from whatwhere.indexer.vectors.index import VectorIndex
from whatwhere.indexer.vectors.names import AUTO, EXACT
from whatwhere.indexer.vectors.segment import Segment
from whatwhere.indexer.vectors.store import Delta, Entry, Generation, SegmentEntry, VectorSource

# A segment is rewritten if more than a quarter of it was removed, and merged with the next one if that is more than
# half as large. So a vector is written about log2 N times in total, and a search reads about log2 N files.
GONE_AT_MOST = 0.25
FOLLOWER_AT_MOST = 0.5
_READ_AT_ONCE = 1024  # images per block

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """A segment of the next generation: `entry` is the file to reuse, None for a file to write.

    `ids` [N] (int64, sorted) are its live ids, `sources` the files that have the vectors of some of them.
    """

    ids: Ids
    sources: tuple[SegmentEntry, ...] = ()
    entry: SegmentEntry | None = None


def plan_segments(held: Sequence[tuple[SegmentEntry, Ids]], live: Ids, *, merged: bool = False) -> list[Planned]:
    """Plan the segments for the ids `live` (sorted) from existing ones with their ids; `merged` plans one segment."""
    planned = []
    for entry, ids in held:
        here = np.intersect1d(ids, live, assume_unique=True)
        stays = len(ids) - len(here) <= GONE_AT_MOST * len(ids)
        if len(here):
            planned.append(Planned(here, (entry,), entry if stays else None))
    known = [np.empty(0, dtype=np.int64), *(segment.ids for segment in planned)]
    missing = np.setdiff1d(live, np.concatenate(known))
    if len(missing):
        planned.append(Planned(missing))
    while len(planned) > 1 and (merged or len(planned[-1].ids) > FOLLOWER_AT_MOST * len(planned[-2].ids)):
        last, before = planned.pop(), planned.pop()
        planned.append(Planned(np.union1d(before.ids, last.ids), before.sources + last.sources))
    return planned


@dataclass(frozen=True)
class SegmentWriter:
    """Writes the segments of one descriptor in one generation; `prefix` names both.

    If `factory` cannot be trained on the vectors, `strict` raises InvalidRequest; otherwise the segment is exact until
    it has grown.
    """

    layout: Layout
    origin: VectorSource
    prefix: str
    factory: str
    strict: bool = False

    def write_all(self, planned: Sequence[Planned]) -> tuple[SegmentEntry, ...]:
        """Write the missing segments and return all entries.

        A factory other than auto is used only for the first segment, which is the largest.
        """
        return tuple(
            segment.entry or self._write(segment, f"{self.prefix}.{place}.faiss", self._factory(segment, place))
            for place, segment in enumerate(planned)
        )

    def _factory(self, planned: Planned, place: int) -> str:
        if self.factory == AUTO:
            return factory_for(len(planned.ids), self.origin.dimensions)
        return EXACT if place else self.factory

    def _write(self, planned: Planned, file_name: str, factory: str) -> SegmentEntry:
        path = self.layout.segments / file_name
        with self._vectors(planned) as vectors:
            try:
                segment = Segment.build(planned.ids, vectors, factory)
            except InvalidRequest as error:
                if self.strict:
                    raise
                log.info("segment=%s exact: %s", file_name, error)
                factory = EXACT
                segment = Segment.build(planned.ids, vectors, factory)
            segment.save(path)
        self.layout.keep(path)
        return SegmentEntry(file_name, factory, len(segment), path.stat().st_size, sha256_of(path))

    @contextmanager
    def _vectors(self, planned: Planned) -> Iterator[Vectors]:
        """Give all vectors [N, D], mapped from an unnamed file, which disappears with the process."""
        dimensions = self.origin.dimensions
        with TemporaryFile(prefix=f"{self.prefix}.", dir=self.layout.segments) as file:
            byte_count = len(planned.ids) * dimensions * np.dtype(np.float32).itemsize
            # A full disk is detected before an hour's work, and not by a mapping, which would end the process.
            reserve(file, byte_count)
            for block in self._blocks(planned):
                file.write(block.data)
            file.flush()
            yield map_vectors(file, dimensions)

    def _blocks(self, planned: Planned) -> Iterator[Vectors]:
        """Yield blocks of vectors [N, D]: copied from lossless files that have them, or derived."""
        held = {
            # verified, because a damaged vector would get a valid checksum
            entry: np.intersect1d(planned.ids, open_verified(self.layout, entry).ids, assume_unique=True)
            for entry in planned.sources
            if is_lossless(entry.factory)
        }
        for start in range(0, len(planned.ids), _READ_AT_ONCE):
            ids = planned.ids[start : start + _READ_AT_ONCE]
            vectors, derived = self._taken_over(ids, held)
            if derived.any():
                vectors[derived] = np.concatenate([*self.origin.vectors(ids[derived])])
            yield vectors

    def _taken_over(self, ids: Ids, held: Mapping[SegmentEntry, Ids]) -> tuple[Vectors, NDArray[np.bool_]]:
        """Return vectors [N, D], filled as far as the files `held` have them, and a mask [N] of those to derive."""
        vectors = np.empty((len(ids), self.origin.dimensions), dtype=np.float32)
        derived = np.ones(len(ids), dtype=bool)
        for entry, theirs in held.items():
            here = theirs[np.searchsorted(theirs, ids[0]) : np.searchsorted(theirs, ids[-1], "right")]
            if len(here):
                places = np.searchsorted(ids, here)
                # Mapped again for each block: pages of a mapping stay resident as long as it exists.
                vectors[places], derived[places] = open_segment(self.layout, entry).vectors(here), False
        return vectors, derived


@dataclass(frozen=True)
class SegmentStore:
    """Vectors in files of the collection.

    `factory` and `strict` are as in `SegmentWriter`; `merged` writes one segment per descriptor; `lent` are segments
    that are open already, by their SHA-256.
    """

    layout: Layout
    factory: str = AUTO
    strict: bool = False
    merged: bool = False
    lent: Mapping[str, Segment] = field(default_factory=dict)

    def knows(self, held: Entry) -> bool:
        """Tell whether the vectors are in files."""
        return held.remote is None

    def write(self, origin: VectorSource, change: Delta, previous: Entry | None) -> Entry:
        """Write the segments of the next generation that `previous` lacks."""
        held = [(entry, open_segment(self.layout, entry).ids) for entry in (previous.segments if previous else ())]
        prefix = f"{change.number:06d}.{origin.descriptor}"
        writer = SegmentWriter(self.layout, origin, prefix, self.factory, self.strict)
        return Entry(writer.write_all(plan_segments(held, change.ids, merged=self.merged)))

    def open(self, held: Entry, generation: Generation) -> VectorIndex:
        """Map the segments; verify the checksums of those that are not lent."""
        return VectorIndex(
            tuple(self.lent.get(entry.sha256) or open_verified(self.layout, entry) for entry in held.segments),
            generation.removed,
        )

    def forget(self, kept: Mapping[int, Sequence[Entry]]) -> None:
        """Delete the segments that none of these generations uses."""
        used = {entry.file_name for parts in kept.values() for held in parts for entry in held.segments}
        for name in self.layout.names(self.layout.segments):
            if name not in used:
                self.layout.discard(self.layout.segments / name)


def stored_descriptions(layout: Layout, catalog: Catalog, ids: Sequence[int]) -> Iterator[tuple[int, Description]]:
    """Yield (id, description) of these images by shard. Raises CollectionCorrupt if a shard is damaged."""
    identity = Identity.of(layout)
    for file_name, places in groupby(catalog.places(ids), key=itemgetter(1)):
        identifiers, _, rows = zip(*places, strict=True)
        path = layout.fetch(layout.shards / file_name)
        yield from zip(identifiers, read_descriptions(path, rows, identity), strict=True)


def open_segment(layout: Layout, entry: SegmentEntry) -> Segment:
    """Map a segment; verify only its length."""
    return Segment.map(layout.fetch(layout.segments / entry.file_name), entry.byte_count)


def open_verified(layout: Layout, entry: SegmentEntry) -> Segment:
    """Map a segment after verifying its checksum, which also loads it into memory."""
    check_segment(layout, entry)
    return open_segment(layout, entry)


def check_segment(layout: Layout, entry: SegmentEntry) -> None:
    """Raise CollectionCorrupt if a vector file is missing or does not match its checksum."""
    path = layout.fetch(layout.segments / entry.file_name)
    # If the local copy is damaged, the original is fetched again.
    if not _is_sound(path, entry) and not _is_sound(layout.fetch(path, refetch=True), entry):
        raise CollectionCorrupt(f"{path.name} is missing or damaged: run `whatwhere verify --repair`")


def _is_sound(path: Path, entry: SegmentEntry) -> bool:
    return path.is_file() and sha256_of(path) == entry.sha256
