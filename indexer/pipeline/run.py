"""Index pictures into a collection: scan → decode and describe → append → publish. Run again, it continues."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from whatwhere.indexer.backbones.backbone import DEFAULT_PRECISION, Backbone, choose_device, load_backbone
from whatwhere.indexer.backbones.engines import ENGINE_VARIABLE
from whatwhere.indexer.backbones.registry import DEFAULT_BACKBONE, find_backbone
from whatwhere.indexer.catalog.records import Outcome, Source
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import CollectionWriter, current_recipe, open_for_writing
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.errors import InvalidRequest, WhatwhereError
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.descriptors import (
    DEFAULT_DESCRIPTORS,
    DEFAULT_PRESET,
    DESCRIPTORS,
    find_descriptor,
    pooled_by,
)
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.indexer.images.decode import SHORTER_SIDE
from whatwhere.indexer.metadata.tables import read_table, uri_of_key
from whatwhere.indexer.metadata.values import Metadata
from whatwhere.indexer.pipeline.chunks import Describing, Pace, described_hash
from whatwhere.indexer.pipeline.loading import Loader, in_groups, source_of
from whatwhere.indexer.pipeline.ray.arrivals import Arrivals
from whatwhere.indexer.pipeline.ray.importing import import_running
from whatwhere.indexer.pipeline.ray.settings import ClusterSettings
from whatwhere.indexer.pipeline.ray.work import Work
from whatwhere.indexer.pipeline.settings import DEFAULT_RANK, MAX_RANK, IndexSettings, Progress, RunSummary
from whatwhere.indexer.pipeline.sidecars import sidecar
from whatwhere.indexer.sources.remote import Remote, Stamp
from whatwhere.indexer.sources.scan import Found, absolute, find, gone
from whatwhere.indexer.sources.uris import shown
from whatwhere.indexer.vectors.factories import AUTO

SHARD_SOURCES = 256  # sources of one shard and one transaction: what a killed run does again, about 15 s on 2 cores

log = logging.getLogger(__name__)


def index_paths(
    paths: Sequence[Path | str],
    collection: CollectionAddress,
    settings: IndexSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> RunSummary:
    """Index the files, folders (recursive), lists and URIs at `paths` into `collection` and publish a generation.

    Bad images are recorded with their reason. InvalidRequest when a path does not exist, or cannot be listed (see
    `whatwhere.indexer.sources.scan.find`), before anything is done; the errors of opening a collection, a backbone and whiteners;
    finished chunks survive anything.
    """
    settings = settings or IndexSettings()
    table = {} if settings.metadata is None else _by_uri(settings.metadata)
    remote = settings.remote()
    found = find(paths, collection, remote)
    with _opened(collection, settings, remote, on_progress) as run:
        run.over(found.pictures)
        run.annotate(found, table)
        run.follow(found)
        return run.publish(found.ignored)


def describe_again(
    collection: CollectionAddress,
    uris: Sequence[str],
    settings: IndexSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> RunSummary:
    """Index exactly the pictures at these URIs again and publish: what a lost shard held, for one.

    A picture that is not there any more counts as failed and stays in the catalogue as it is.
    """
    settings = settings or IndexSettings()
    with _opened(collection, settings, settings.remote(), on_progress) as run:
        run.over(dict.fromkeys(uris))
        return run.publish()


@contextmanager
def _opened(
    collection: CollectionAddress, settings: IndexSettings, remote: Remote, on_progress: Callable[[Progress], None]
) -> Iterator["_Run"]:
    """Lock and open a collection, made when it is not there, to index by the settings."""
    layout = Layout.at(collection)
    known = current_recipe(layout)
    backbone = _backbone(collection, known, settings)
    recipe = _recipe(known, backbone, settings)
    if known is not None:
        known.require_same(recipe, collection)  # before whiteners of another network are missed
    describer = Describer(backbone, recipe.rank, recipe.pooled)
    whiteners = find_whiteners(layout, recipe, settings.whiteners)
    with open_for_writing(collection, recipe, settings.stores) as writer:
        yield _Run(writer, describer, whiteners, settings, remote, on_progress)


def _by_uri(path: Path) -> dict[str, Metadata]:
    """Read a table; its rows by the URI of the file that they name."""
    return {uri_of_key(key, path.parent): values for key, values in read_table(path).items()}


def _backbone(collection: CollectionAddress, known: Recipe | None, settings: IndexSettings) -> Backbone:
    """Load the network asked for, else the collection's own or the default, with the weights asked for."""
    spec = find_backbone(settings.backbone or (known.backbone if known else DEFAULT_BACKBONE))
    if known and known.backbone == spec.name and settings.weights is None:
        # Before the published weights are fetched for a collection that was made with others.
        known.require_network(spec.layer, spec.weights.sha256_prefix, collection)
    precision = settings.precision or (known.precision if known else DEFAULT_PRECISION)
    return load_backbone(spec.name, choose_device(settings.device), weights=settings.weights, precision=precision)


def _recipe(known: Recipe | None, backbone: Backbone, settings: IndexSettings) -> Recipe:
    """Return the recipe asked for, filled up from the collection's own or the defaults."""
    rank = settings.rank if settings.rank is not None else (known.rank if known else DEFAULT_RANK)
    if not 1 <= rank <= MAX_RANK:
        raise InvalidRequest(f"rank {rank} is out of range: give 1 to {MAX_RANK} factors an image", field="rank")
    if settings.batch_size < 1:
        raise InvalidRequest(f"batch size {settings.batch_size} is out of range: give 1 or more", field="batch_size")
    preset = settings.preset or (known.preset if known else DEFAULT_PRESET)
    chosen = settings.descriptors or (known.descriptors if known else DEFAULT_DESCRIPTORS)
    methods = {name: find_descriptor(name, preset) for name in chosen}
    return Recipe(
        backbone.spec.name,
        backbone.spec.layer,
        backbone.weights_sha256,
        rank,
        SHORTER_SIDE,
        precision=backbone.precision,
        pooled=known.pooled if known else pooled_by(methods.values()),
        descriptors=tuple(name for name in DESCRIPTORS if name in methods),
        preset=preset,
        index_factory=known.index_factory if known else AUTO,
    )


class _Run:
    """One pass over the pictures, kept chunk by chunk (see `Describing`).

    Whatever is done after the pass ends the same when it is done again, so that a killed run can be continued.
    """

    def __init__(
        self,
        writer: CollectionWriter,
        describer: Describer,
        whiteners: Mapping[str, Sequence[Whitener]],
        settings: IndexSettings,
        remote: Remote,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._writer = writer
        self._catalog = writer.catalog
        self._whiteners = whiteners
        self._settings = settings
        self._remote = remote
        self._on_progress = on_progress
        self._progress = Progress(total=0)
        self._summary = RunSummary(self._progress, 0, 0, 0, published=False)
        self._gone: list[str] = []  # what this run read and found not to be there
        self._describing = Describing(
            Loader(
                self._catalog,
                settings.limits,
                settings.retry_failed,
                settings.exif,
                settings.exif_gps,
                settings.checksum,
                remote,
            ),
            describer,
            Pace(settings.batch_size, settings.workers, SHARD_SOURCES),
            self._is_known,
            self._note,
            partial(self._count, {"unchanged": 1}),
        )
        self._id = writer.catalog.start_run()

    def over(self, pictures: Mapping[str, Stamp | None]) -> None:
        """Index every picture."""
        self._count({"total": len(pictures)})
        if self._settings.cluster is None:
            self._describe_here(pictures)
        else:
            self._describe_elsewhere(pictures, self._settings.cluster)
        self._on_progress(self._progress)

    def _describe_here(self, pictures: Mapping[str, Stamp | None]) -> None:
        with closing(self._describing.chunks(self._changed(pictures))) as chunks:
            for chunk in chunks:
                self._writer.append(chunk.outcomes, chunk.descriptions)
                self._gone += chunk.gone

    def _describe_elsewhere(self, pictures: Mapping[str, Stamp | None], cluster: ClusterSettings) -> None:
        """Have the same chunks of the same batches described by workers, and record them in order."""
        running = import_running(cluster)
        batch_size = self._settings.batch_size
        chunks = [*in_groups(self._changed(pictures), -(-SHARD_SOURCES // batch_size) * batch_size)]
        arrivals = Arrivals(self._writer, self._describing)
        with running.connected(cluster), self._writer.layout.receiving():
            for arrived in running.described(chunks, self._work(), cluster):
                arrivals.record(arrived)
                self._gone += arrived.gone

    def _is_known(self, content_hash: str) -> bool:
        """Tell whether the content is recorded by now."""
        return self._catalog.has_content(content_hash, retry_failed=self._settings.retry_failed)

    def _work(self) -> Work:
        wanted, describer = self._settings, self._describing.describer
        address = self._writer.layout.address
        return Work(
            collection=absolute(address) if isinstance(address, Path) else address,
            backbone=describer.backbone.spec.name,
            weights=None if wanted.weights is None else absolute(wanted.weights),
            precision=describer.backbone.precision,
            rank=describer.rank,
            pooled=describer.pooled,
            fingerprint=describer.fingerprint,
            device=wanted.device,
            engine=os.environ.get(ENGINE_VARIABLE),
            batch_size=wanted.batch_size,
            decoding_threads=wanted.workers,
            limits=wanted.limits,
            retry_failed=wanted.retry_failed,
            exif=wanted.exif,
            exif_gps=wanted.exif_gps,
            checksum=wanted.checksum,
            rate=wanted.max_requests_per_second,
        )

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        """Count outcomes that are not recorded yet."""
        counts: Counter[str] = Counter()
        for outcome in outcomes:
            if outcome.known_hash is not None:
                known_here = self._catalog.content_of(outcome.source.uri) == outcome.known_hash
                counts["unchanged" if known_here else "duplicates"] += 1
            else:
                counts["failed" if described_hash(outcome) is None else "described"] += 1
        self._count(counts)
        self._on_progress(self._progress)

    def annotate(self, found: Found, table: Mapping[str, Metadata]) -> None:
        """Set what sidecars say of the pictures found, and tables and lists of any; equal values write nothing."""
        changed, torn = self._annotate_by_sidecars(found)
        left = dict(table)
        for manifest in found.manifests:
            for entries in in_groups(manifest.entries(), SHARD_SOURCES):
                # Where both say something of a picture, the table has the last word.
                said = {uri: {**(values or {}), **table.get(uri, {})} for uri, values in entries}
                changed += self._catalog.set_metadata("file", said)
                for uri in said:
                    left.pop(uri, None)
        for rows in in_groups(left.items(), SHARD_SOURCES):
            changed += self._catalog.set_metadata("file", dict(rows))
        unmatched = table.keys() - found.pictures.keys()
        if unmatched:
            log.warning("metadata rows=%d name none of the files, one is %s", len(unmatched), shown(min(unmatched)))
        self._summary = replace(
            self._summary, metadata_changed=changed, unmatched_rows=len(unmatched), torn_sidecars=torn
        )

    def _annotate_by_sidecars(self, found: Found) -> tuple[int, int]:
        """Set what sidecars say, nothing where none lies; return how many sources changed and sidecars are torn."""
        changed = torn = 0
        with ThreadPoolExecutor(self._settings.workers or available_cores(), "sidecars") as pool:
            for group in in_groups(found.pictures, SHARD_SOURCES):
                said: dict[str, Metadata] = {uri: {} for uri in group if found.sidecar_is_known(uri)}
                beside = [uri for uri in group if uri in found.with_sidecar]
                for uri, values in zip(beside, pool.map(partial(sidecar, self._remote), beside), strict=True):
                    if isinstance(values, WhatwhereError):
                        log.warning("sidecar torn source=%s error=%s", shown(uri), values)
                        torn += 1
                        del said[uri]
                    else:
                        said[uri] = values
                changed += self._catalog.set_metadata("sidecar", said)
        return changed, torn

    def follow(self, found: Found) -> None:
        """Find out which sources are gone from where this run looked, and forget them where that is asked for."""
        recorded = self._catalog.vanished(found.places, found.pictures)
        folders = tuple(place for place in found.places if place.endswith("/"))
        # Of what was named one by one, whatever held a picture once.
        named = [uri for uri in self._gone if not uri.startswith(folders) and self._catalog.content_of(uri)]
        vanished = tuple(sorted({*gone(recorded, found.unlisted, self._remote), *named}))
        if self._settings.prune and vanished:
            self._catalog.forget_sources(vanished)
        self._summary = replace(
            self._summary,
            vanished=vanished,
            pruned=self._settings.prune and bool(vanished),
            unlisted=tuple(found.unlisted),
        )

    def publish(self, ignored: int = 0) -> RunSummary:
        """Publish the next generation, if anything changed, and record the run."""
        published = publish(self._writer.layout, self._catalog, self._writer.recipe, self._whiteners)
        summary = replace(
            self._summary,
            progress=self._progress,
            ignored=ignored,
            images=published.manifest.image_count,
            generation=published.manifest.number,
            published=published.is_new,
        )
        self._catalog.finish_run(self._id, asdict(summary) | {"vanished": len(summary.vanished)})
        return summary

    def _changed(self, pictures: Mapping[str, Stamp | None]) -> Iterator[Source]:
        """Yield what must be looked at; what could not be read before comes last, so that it shifts no batch."""
        again: list[Source] = []
        for group in in_groups(pictures.items(), SHARD_SOURCES):
            sources = [source_of(uri, stamp) for uri, stamp in group]
            unchanged = set()
            if not self._settings.checksum:
                unchanged = self._catalog.unchanged(sources, retry_failed=self._settings.retry_failed)
            self._count({"unchanged": len(unchanged)})
            unreadable = self._catalog.unreadable(sources)
            again += (source for source in sources if source.uri in unreadable)
            yield from (source for source in sources if source.uri not in unchanged | unreadable)
        yield from again

    def _count(self, more: Mapping[str, int]) -> None:
        counts = {name: getattr(self._progress, name) + count for name, count in more.items()}
        self._progress = replace(self._progress, **counts)
