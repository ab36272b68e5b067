"""What a worker is told, and what comes back: all of it may cross to another machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whatwhere.indexer.catalog.records import Outcome, ShardRecord
from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.images.limits import ImageLimits


@dataclass(frozen=True)
class Work:
    """How chunks are described, the same for all of a run."""

    collection: CollectionAddress
    backbone: str
    weights: Path | None
    precision: str
    rank: int
    pooled: tuple[str, ...]
    fingerprint: tuple[object, ...]  # of the describer of the process that asks, see `Describer.fingerprint`
    device: str
    engine: str | None  # what WHATWHERE_ENGINE says where the run was started
    batch_size: int
    decoding_threads: int | None
    limits: ImageLimits
    retry_failed: bool
    exif: bool
    exif_gps: bool
    checksum: bool
    rate: float | None  # requests a second of what is elsewhere: of all workers, where one is told of each


@dataclass(frozen=True)
class Arrived:
    """A described chunk: its outcomes in order, and its shard, by a name of its own below `Layout.arriving`.

    `host` is the machine that described it, `unchanged` the number of sources of which nothing had to be read, `gone`
    the URIs at which nothing is.
    """

    outcomes: Sequence[Outcome]
    shard: ShardRecord | None
    host: str
    unchanged: int = 0
    gone: Sequence[str] = ()
