"""Which files of vectors a generation has: those of the last one that stay as they are, and those to write."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from tempfile import TemporaryFile

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.catalog import Catalog
from indexer.collection.layout import Layout
from indexer.collection.manifest import SegmentEntry
from indexer.collection.shards import read_descriptions
from indexer.describe import Description
from indexer.errors import CollectionCorrupt, InvalidRequest
from indexer.files import sha256_of
from indexer.vectors import AUTO, EXACT, Ids, Segment, Vectors, factory_for, is_lossless, map_vectors

# A segment is written anew without what has gone from it when that is more than a quarter, and together with the one
# after it when that is more than half as large: so a vector is written about log2 N times in all, and a search looks
# into about log2 N files.
GONE_AT_MOST = 0.25
FOLLOWER_AT_MOST = 0.5
_READ_AT_ONCE = 1024  # images

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """A segment of the next generation: `entry` where the file stays as it is, else what it is to hold.

    `ids` (sorted) are those that can be found in it, `sources` the files that have the vectors of some of them.
    """

    ids: Ids
    sources: tuple[SegmentEntry, ...] = ()
    entry: SegmentEntry | None = None


def plan_segments(held: Sequence[tuple[SegmentEntry, Ids]], live: Ids, *, merged: bool = False) -> list[Planned]:
    """Return the segments that make up `live` (sorted), from those held with their ids; all in one where `merged`."""
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
    """Writes segments of one descriptor of one generation, `prefix` names both.

    `describe` derives a vector [D] from what a shard keeps. Where `factory` cannot be trained on what there is,
    `strict` raises InvalidRequest; else the segment is exact until it has grown.
    """

    layout: Layout
    catalog: Catalog
    describe: Callable[[Description], Vectors]
    dimensions: int
    prefix: str
    factory: str
    strict: bool = False

    def write_all(self, planned: Sequence[Planned]) -> tuple[SegmentEntry, ...]:
        """Write what is not there yet and return all entries.

        By a factory that was asked for only the first and largest is built.
        """
        return tuple(
            segment.entry or self._write(segment, f"{self.prefix}.{place}.faiss", self._factory(segment, place))
            for place, segment in enumerate(planned)
        )

    def _factory(self, planned: Planned, place: int) -> str:
        if self.factory == AUTO:
            return factory_for(len(planned.ids), self.dimensions)
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
        return SegmentEntry(file_name, factory, len(segment), path.stat().st_size, sha256_of(path))

    @contextmanager
    def _vectors(self, planned: Planned) -> Iterator[Vectors]:
        """Give all vectors [N, D], mapped from a file without a name: a kill leaves nothing of it."""
        with TemporaryFile(prefix=f"{self.prefix}.", dir=self.layout.segments) as file:
            byte_count = len(planned.ids) * self.dimensions * np.dtype(np.float32).itemsize
            # A full disk is found before an hour's work, and never by a mapping, which would end the process.
            os.posix_fallocate(file.fileno(), 0, byte_count)
            for block in self._blocks(planned):
                file.write(block.data)
            file.flush()
            yield map_vectors(file, self.dimensions)

    def _blocks(self, planned: Planned) -> Iterator[Vectors]:
        """Yield the vectors of some ids after the other: taken over from files that have them unchanged, or derived."""
        held = {
            # verified, or a damaged vector would get a good checksum
            entry: np.intersect1d(planned.ids, open_verified(self.layout, entry).ids, assume_unique=True)
            for entry in planned.sources
            if is_lossless(entry.factory)
        }
        # The arrays are small: measured, a thread for each core takes two thirds of the time of all cores on each.
        with ThreadPoolExecutor(os.cpu_count(), "derive", partial(torch.set_num_threads, 1)) as pool:
            for start in range(0, len(planned.ids), _READ_AT_ONCE):
                ids = planned.ids[start : start + _READ_AT_ONCE]
                vectors, derived = self._taken_over(ids, held)
                for image_id, vector in self._derived(ids[derived].tolist(), pool):
                    vectors[np.searchsorted(ids, image_id)] = vector
                yield vectors

    def _taken_over(self, ids: Ids, held: Mapping[SegmentEntry, Ids]) -> tuple[Vectors, NDArray[np.bool_]]:
        """Return room for the vectors of these ids, filled from the files that hold some, and which are to derive."""
        vectors = np.empty((len(ids), self.dimensions), dtype=np.float32)
        derived = np.ones(len(ids), dtype=bool)
        for entry, theirs in held.items():
            here = theirs[np.searchsorted(theirs, ids[0]) : np.searchsorted(theirs, ids[-1], "right")]
            if len(here):
                places = np.searchsorted(ids, here)
                # Mapped anew for each block: what was read of a mapping stays resident as long as it stands.
                vectors[places], derived[places] = open_segment(self.layout, entry).vectors(here), False
        return vectors, derived

    def _derived(self, ids: Sequence[int], pool: ThreadPoolExecutor) -> Iterator[tuple[int, Vectors]]:
        if ids:
            found, descriptions = zip(*stored_descriptions(self.layout, self.catalog, ids), strict=True)
            yield from zip(found, pool.map(self.describe, descriptions), strict=True)


def stored_descriptions(layout: Layout, catalog: Catalog, ids: Sequence[int]) -> Iterator[tuple[int, Description]]:
    """Yield (id, description) of these images, each shard opened once; CollectionCorrupt for a damaged one."""
    for file_name, places in groupby(catalog.places(ids), key=itemgetter(1)):
        identifiers, _, rows = zip(*places, strict=True)
        yield from zip(identifiers, read_descriptions(layout.shards / file_name, rows), strict=True)


def open_segment(layout: Layout, entry: SegmentEntry) -> Segment:
    """Map a segment; only its length is compared."""
    return Segment.map(layout.segments / entry.file_name, entry.byte_count)


def open_verified(layout: Layout, entry: SegmentEntry) -> Segment:
    """Map a segment of which every byte was compared, which also brings it into memory."""
    check_segment(layout, entry)
    return open_segment(layout, entry)


def check_segment(layout: Layout, entry: SegmentEntry) -> None:
    """Raise CollectionCorrupt for a file of vectors that is absent or holds other bytes than were written."""
    path = layout.segments / entry.file_name
    if not path.is_file() or sha256_of(path) != entry.sha256:
        raise CollectionCorrupt(f"{path.name} is missing or damaged: run `whatwhere verify --repair`")
