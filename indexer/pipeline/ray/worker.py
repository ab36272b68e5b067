"""What runs in Ray's processes: workers that describe chunks, and the ledger that they ask."""

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
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.stores import open_catalog
from whatwhere.indexer.collection.writer import write_shard_file
from whatwhere.indexer.errors import CollectionMismatch, CollectionNotWritable, WhatwhereError
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.pipeline.chunks import Batch, Chunk, ChunkSizes, describe_sources
from whatwhere.indexer.pipeline.loading import Loader
from whatwhere.indexer.pipeline.ray.work import Arrived, Work

_TURN_S = 0.2  # between two questions whether the committer has come near enough


class Ledger:
    """Stands beside the process that records chunks: what the catalogue knows, and how far it is.

    Workers on other machines cannot open an SQLite file.
    """

    def __init__(self, collection: CollectionAddress, window: int) -> None:
        self._catalog = open_catalog(Layout.at(collection))
        self._window = window
        self._recorded = 0

    def has_content(self, content_hash: str, retry_failed: bool) -> bool:
        """Tell whether this content needs no describing."""
        return self._catalog.has_content(content_hash, retry_failed=retry_failed)

    def content_of(self, uri: str) -> str | None:
        """Return the hash of what was last read at a URI, None when nothing was."""
        return self._catalog.content_of(uri)

    def unchanged(self, sources: Sequence[Source], retry_failed: bool) -> set[str]:
        """Return the URIs of which nothing changed."""
        return self._catalog.unchanged(sources, retry_failed=retry_failed)

    def recorded(self, chunks: int) -> None:
        """Note that this many chunks, the first ones, are recorded."""
        self._recorded = chunks

    def may_begin(self, number: int) -> bool:
        """Tell whether a chunk is not too far ahead of those that are recorded."""
        return number < self._recorded + self._window


@dataclass(frozen=True)
class _Known:
    """The catalogue, as the loader asks it, through the ledger."""

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
    """Describes chunks, one after the other, with a network that it loads once; `cpus` threads each."""

    def __init__(self, work: Work, ledger: Any, cpus: int) -> None:
        self._work = work
        self._ledger = ledger
        self._cpus = cpus
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of torn files, for each entry; the process is ours alone

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Describe the sources of a row of the data set; what it holds for good is bytes, an error among them."""
        sources = pickle.loads(row["sources"])  # noqa: S301 - written by the process that started this one
        result: Arrived | Exception
        try:
            result = self._described(int(row["number"]), sources)
        except (WhatwhereError, OSError) as error:  # named ones; another machine's frames are of no use
            result = error.with_traceback(None)
        return {"result": pickle.dumps(result)}

    def _described(self, number: int, sources: Sequence[Source]) -> Arrived:
        while not ray.get(self._ledger.may_begin.remote(number)):
            time.sleep(_TURN_S)
        work = self._work
        sizes = ChunkSizes(work.batch_size, work.decoding_threads or self._cpus, len(sources))
        # Contents that are recorded meanwhile, or are in other workers' chunks, are found when this one is recorded.
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
        """Load the network: with the first chunk, where an error has a name, and not when the process starts."""
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
                f"{platform.node()} would describe by {describer.fingerprint}, not {work.fingerprint}: install the "
                "same version of whatwhere, and the same weights, on all machines"
            )
        return describer

    def _written(self, descriptions: Sequence[Description]) -> ShardRecord:
        layout = Layout.at(self._work.collection)
        if layout.objects is not None:
            layout.arriving.mkdir(parents=True, exist_ok=True)
        elif not layout.arriving.is_dir():
            raise CollectionNotWritable(
                f"{self._work.collection} is not there on {platform.node()}: the collection must lie in a directory "
                "that all machines share, or in an object store"
            )
        # A name that nobody else ever writes: not another try of this chunk either, nor a worker of a killed run.
        return write_shard_file(layout, layout.arriving / f"{uuid.uuid4().hex}.safetensors", descriptions)
