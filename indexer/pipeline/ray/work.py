"""Messages between a run and its workers: everything here may cross to another machine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from whatwhere.indexer.backbones.names import ENGINE_VARIABLE
from whatwhere.indexer.catalog.records import Outcome, ShardRecord
from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.pipeline.settings import IndexSettings, ReadSettings
from whatwhere.indexer.sources.scan import absolute


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
    reading: ReadSettings  # of all workers; what one of them gets has its share of the request rate

    @classmethod
    def of(cls, collection: CollectionAddress, settings: IndexSettings, describer: Describer) -> Self:
        """Return the work of a run that would describe with `describer` in this process."""
        return cls(
            collection=absolute(collection) if isinstance(collection, Path) else collection,
            backbone=describer.backbone.spec.name,
            weights=None if settings.weights is None else absolute(settings.weights),
            precision=describer.backbone.precision,
            rank=describer.rank,
            pooled=describer.pooled,
            fingerprint=describer.fingerprint,
            device=settings.device,
            engine=os.environ.get(ENGINE_VARIABLE),
            batch_size=settings.batch_size,
            decoding_threads=settings.workers,
            reading=settings.reading(),
        )


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
