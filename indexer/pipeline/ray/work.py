"""Messages between a run and its workers, which may be on other machines."""

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
    """How the workers of a run describe chunks."""

    collection: CollectionAddress
    backbone: str
    weights: Path | None
    precision: str
    rank: int
    pooled: tuple[str, ...]
    fingerprint: tuple[object, ...]  # of the describer in the process of the run, see `Describer.fingerprint`
    device: str
    engine: str | None  # WHATWHERE_ENGINE in the process of the run
    batch_size: int
    decoding_threads: int | None
    reading: ReadSettings  # the request rate is that of all workers; each one gets its share

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
    """A described chunk: its outcomes in order, and its shard, which has a unique name in `Layout.arriving`.

    `host` is the machine of the worker, `unchanged` the number of sources that needed no reading, `gone` the URIs of
    missing files.
    """

    outcomes: Sequence[Outcome]
    shard: ShardRecord | None
    host: str
    unchanged: int = 0
    gone: Sequence[str] = ()
