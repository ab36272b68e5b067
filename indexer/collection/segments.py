"""Which files of vectors a generation has: those of the last one that stay as they are, and those to write."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch

from indexer.catalog import Catalog
from indexer.collection.layout import Layout
from indexer.collection.manifest import SegmentEntry
from indexer.collection.shards import read_descriptions
from indexer.describe import Description
from indexer.errors import CollectionCorrupt, InvalidRequest
from indexer.files import sha256_of
from indexer.vectors import AUTO, EXACT, Ids, Segment, Vectors, factory_for, is_lossless

# A segment is written anew without what has gone from it when that is more than a quarter, and together with the one
# after it when that is more than half as large: so a vector is written about log2 N times in all, and a search looks
# into about log2 N files.
GONE_AT_MOST = 0.25
FOLLOWER_AT_MOST = 0.5
_READ_AT_ONCE = 1024

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
        vectors = self._vectors(planned)
        try:
            segment = Segment.build(planned.ids, vectors, factory)
        except InvalidRequest as error:
            if self.strict:
                raise
            log.info("segment=%s exact: %s", file_name, error)
            factory = EXACT
            segment = Segment.build(planned.ids, vectors, factory)
        path = self.layout.segments / file_name
        segment.save(path)
        return SegmentEntry(file_name, factory, len(segment), path.stat().st_size, sha256_of(path))

    def _vectors(self, planned: Planned) -> Vectors:
        """Take vectors over from files that have them unchanged, and derive the others."""
        vectors = np.empty((len(planned.ids), self.dimensions), dtype=np.float32)
        derived = np.ones(len(planned.ids), dtype=bool)
        for entry in planned.sources:
            if is_lossless(entry.factory):
                source = open_verified(self.layout, entry)  # or a damaged vector would get a good checksum
                here = np.intersect1d(planned.ids, source.ids, assume_unique=True)
                places = np.searchsorted(planned.ids, here)
                vectors[places], derived[places] = source.vectors(here), False
        ids = planned.ids[derived]
        # The arrays are small: measured, a thread for each core takes two thirds of the time of all cores on each.
        with ThreadPoolExecutor(os.cpu_count(), "derive", partial(torch.set_num_threads, 1)) as pool:
            for start in range(0, len(ids), _READ_AT_ONCE):
                some = ids[start : start + _READ_AT_ONCE].tolist()
                found, descriptions = zip(*stored_descriptions(self.layout, self.catalog, some), strict=True)
                for image_id, vector in zip(found, pool.map(self.describe, descriptions), strict=True):
                    vectors[np.searchsorted(planned.ids, image_id)] = vector
        return vectors


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
