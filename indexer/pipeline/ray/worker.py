"""The actor of Ray that describes chunks."""

import os
import pickle
import platform
import time
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ray
import torch

from whatwhere.indexer.backbones.backbone import choose_device, load_backbone
from whatwhere.indexer.backbones.names import ENGINE_VARIABLE
from whatwhere.indexer.catalog.records import ShardRecord, Source
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.writer import write_shard_file
from whatwhere.indexer.errors import CollectionMismatch, CollectionNotWritable, WhatwhereError
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.pipeline.chunks import Batch, Chunk, ChunkSizes, describe_sources
from whatwhere.indexer.pipeline.loading import Loader
from whatwhere.indexer.pipeline.ray.work import Arrived, Work

_TURN_S = 0.2  # between two polls of the ledger


@dataclass(frozen=True)
class _Known:
    """The catalog for a loader, through the ledger."""

    ledger: Any

    def has_content(self, content_hash: str, *, retry_failed: bool = False) -> bool:
        return bool(ray.get(self.ledger.has_content.remote(content_hash, retry_failed)))

    def content_of(self, uri: str) -> str | None:
        found: str | None = ray.get(self.ledger.content_of.remote(uri))
        return found

    def unchanged(self, sources: Sequence[Source], *, retry_failed: bool = False) -> set[str]:
        found: set[str] = ray.get(self.ledger.unchanged.remote(sources, retry_failed))
        return found


class ChunkWorker:
    """Describes chunks one after another with a network that is loaded once, on `cpus` threads."""

    def __init__(self, work: Work, ledger: Any, cpus: int) -> None:
        self._work = work
        self._ledger = ledger
        self._cpus = cpus
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of corrupt files, for each entry; the process is ours

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Describe the sources in a row of the data set; return the result, or a named error, as pickled bytes."""
        sources = pickle.loads(row["sources"])  # noqa: S301 - written by the process that started this one
        result: Arrived | Exception
        try:
            result = self._described(int(row["number"]), sources)
        except (WhatwhereError, OSError) as error:  # named errors, without the traceback of another machine
            result = error.with_traceback(None)
        return {"result": pickle.dumps(result)}

    def _described(self, number: int, sources: Sequence[Source]) -> Arrived:
        while not ray.get(self._ledger.may_begin.remote(number)):
            time.sleep(_TURN_S)
        work = self._work
        sizes = ChunkSizes(work.batch_size, work.decoding_threads or self._cpus, len(sources))
        # Contents that are recorded meanwhile or in chunks of other workers are detected when this one is recorded.
        events = [*describe_sources(sources, self._load, self._describer, sizes)]
        batches = [event for event in events if isinstance(event, Batch)]
        chunk = next((event for event in events if isinstance(event, Chunk)), Chunk())
        shard = self._written(chunk.descriptions) if chunk.descriptions else None
        unchanged = sum(batch.unchanged for batch in batches)
        gone = [uri for batch in batches for uri in batch.gone]
        return Arrived(chunk.outcomes, shard, platform.node(), unchanged, gone)

    @cached_property
    def _load(self) -> Loader:
        reading = self._work.reading
        return Loader(_Known(self._ledger), reading, reading.remote())

    @cached_property
    def _describer(self) -> Describer:
        """Load the network, with the first chunk: an error at the start of the process would have no name."""
        work = self._work
        torch.set_num_threads(self._cpus)
        if work.engine is not None:
            os.environ[ENGINE_VARIABLE] = work.engine
        device = choose_device(work.device)
        backbone = load_backbone(
            work.backbone, device, weights=work.weights, precision=work.precision, threads=self._cpus
        )
        describer = Describer(backbone, work.rank, work.pooled)
        if describer.fingerprint != work.fingerprint:
            raise CollectionMismatch(
                f"{platform.node()} describes with {describer.fingerprint}, not {work.fingerprint}: install the "
                "same version of whatwhere, and the same weights, on all machines"
            )
        return describer

    @cached_property
    def _identity(self) -> Identity:
        return Identity.of(Layout.at(self._work.collection))

    def _written(self, descriptions: Sequence[Description]) -> ShardRecord:
        layout = Layout.at(self._work.collection)
        if layout.objects is not None:
            layout.arriving.mkdir(parents=True, exist_ok=True)
        elif not layout.arriving.is_dir():
            raise CollectionNotWritable(
                f"{self._work.collection} does not exist on {platform.node()}: the collection must be in a directory "
                "that all machines share, or in an object store"
            )
        # A unique name, also among other attempts for this chunk and workers of a killed run.
        return write_shard_file(
            layout, layout.arriving / f"{uuid.uuid4().hex}.safetensors", descriptions, self._identity
        )
