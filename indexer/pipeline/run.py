"""Index images into a collection: scan → decode and describe → append → publish. A repeated run continues."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from whatwhere.indexer.backbones.torch_threads import torch_threads
from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.records import FAILED, Source
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import CollectionWriter, current_recipe, open_for_writing
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.indexer.pipeline.annotate import Annotator, TableRow, table_by_uri
from whatwhere.indexer.pipeline.choose_recipe import choose_backbone, choose_recipe
from whatwhere.indexer.pipeline.chunks import Batch, ChunkSizes, describe_sources, described_hash
from whatwhere.indexer.pipeline.loading import Loader, source_of
from whatwhere.indexer.pipeline.ray.arrivals import Arrivals
from whatwhere.indexer.pipeline.ray.importing import import_running
from whatwhere.indexer.pipeline.ray.settings import ClusterSettings
from whatwhere.indexer.pipeline.ray.work import Work
from whatwhere.indexer.pipeline.settings import IndexSettings, Progress, RunSummary
from whatwhere.indexer.pipeline.vanished import gone_copies, require_recorded, without_doubtful, without_gone
from whatwhere.indexer.sources.kinds import count_kinds
from whatwhere.indexer.sources.remote import Remote, Stamp
from whatwhere.indexer.sources.scan import Found, find, gone
from whatwhere.indexer.sources.uris import is_remote

SHARD_SOURCES = 256  # sources per shard and transaction: a killed run repeats at most these, about 15 s on 2 cores


def index_paths(
    paths: Sequence[Path | str],
    collection: CollectionAddress,
    settings: IndexSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> RunSummary:
    """Index the files, folders (recursive), lists and URIs at `paths` into `collection` and publish a generation.

    `on_progress` is called after each batch. Unreadable images are recorded with their reason. Recorded chunks are
    never lost. With `prune`, a path may be gone (see `pipeline.vanished`). Raises InvalidRequest if a path does not
    exist or cannot be listed (see `sources.scan.find`), before anything is written, and the errors of opening a
    collection, a backbone and whiteners.
    """
    settings = settings or IndexSettings()
    table = {} if settings.metadata is None else table_by_uri(settings.metadata)
    remote = settings.reading().remote()
    exists = current_recipe(Layout.at(collection)) is not None
    there, missing = without_gone(paths) if settings.prune and exists else (paths, [])
    found = find(there, collection, remote, settings.exclusions())
    with _opened(collection, settings, remote, on_progress) as run:
        run.require_recorded(missing)
        run.describe(found.pictures)
        run.annotate(found, table)
        run.follow(found, missing)
        run.name_skipped(found)
        return run.publish()


def describe_again(
    collection: CollectionAddress,
    uris: Sequence[str],
    settings: IndexSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> RunSummary:
    """Index exactly the images at these URIs again and publish, for example after the loss of a shard.

    An image that no longer exists counts as failed and stays unchanged in the catalog.
    """
    settings = settings or IndexSettings()
    with _opened(collection, settings, settings.reading().remote(), on_progress) as run:
        run.describe(dict.fromkeys(uris))
        return run.publish()


@contextmanager
def _opened(
    collection: CollectionAddress, settings: IndexSettings, remote: Remote, on_progress: Callable[[Progress], None]
) -> Iterator["_Run"]:
    """Lock and open a collection for a run; create it if it does not exist."""
    layout = Layout.at(collection)
    known = current_recipe(layout)
    backbone = choose_backbone(collection, known, settings)
    recipe = choose_recipe(known, backbone, settings)
    if known is not None:
        known.require_same(recipe, collection)  # before the search for whiteners, which would fail for another network
    describer = Describer(backbone, recipe.rank, recipe.pooled)
    whiteners = find_whiteners(layout, recipe, settings.whiteners)
    limited = nullcontext() if settings.threads is None else torch_threads(settings.threads)
    with limited, open_for_writing(collection, recipe, settings.stores) as writer:
        yield _Run(writer, describer, whiteners, settings, remote, on_progress)


class _Run:
    """One pass over the images, recorded chunk by chunk; it folds the batches into progress and a summary.

    Everything after the pass has the same result if it is repeated, so that a killed run can be continued.
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
        self._describer = describer
        self._whiteners = whiteners
        self._settings = settings
        self._remote = remote
        self._on_progress = on_progress
        self._progress = Progress(total=0)
        self._summary = RunSummary(self._progress, 0, 0, 0, published=False)
        self._failures: Counter[str] = Counter()  # by reason
        self._truncated = 0
        self._gone: list[str] = []  # URIs that this run tried to read and that do not exist
        self._load = Loader(self._catalog, settings.reading(), remote)
        self._id = writer.catalog.start_run()

    def require_recorded(self, missing: Sequence[str]) -> None:
        """Raise InvalidRequest if the collection has no source at or below a place that does not exist."""
        require_recorded(self._catalog, missing)

    def describe(self, pictures: Mapping[str, Stamp | None]) -> None:
        """Describe and record every image that is new or changed."""
        self._count({"total": len(pictures)})
        if self._settings.cluster is None:
            self._describe_here(pictures)
        else:
            self._describe_on_cluster(pictures, self._settings.cluster)
        self._on_progress(self._progress)

    def _describe_here(self, pictures: Mapping[str, Stamp | None]) -> None:
        sizes = ChunkSizes(self._settings.batch_size, self._settings.decoding_threads, SHARD_SOURCES)
        sources = self._sources_to_read(pictures)
        with closing(describe_sources(sources, self._load, self._describer, sizes, self._is_known)) as events:
            for event in events:
                if isinstance(event, Batch):
                    self._fold(event)
                else:
                    self._writer.append(event.outcomes, event.descriptions)

    def _describe_on_cluster(self, pictures: Mapping[str, Stamp | None], cluster: ClusterSettings) -> None:
        """Let workers describe the same chunks with the same batches, and record them in order."""
        running = import_running(cluster)
        batch_size = self._settings.batch_size
        chunks = [*batched(self._sources_to_read(pictures), -(-SHARD_SOURCES // batch_size) * batch_size)]
        arrivals = Arrivals(self._writer, self._load, self._is_known)
        work = Work.of(self._writer.layout.address, self._settings, self._describer)
        with running.connected(cluster), self._writer.layout.receiving():
            for arrived in running.described(chunks, work, cluster):
                outcomes = arrivals.outcomes(arrived)
                self._fold(Batch(outcomes, arrived.unchanged, arrived.gone))
                arrivals.record(arrived, outcomes)

    def _sources_to_read(self, pictures: Mapping[str, Stamp | None]) -> Iterator[Source]:
        """Yield new and changed sources; unreadable ones of earlier runs come last, so that they shift no batch."""
        again: list[Source] = []
        for group in batched(pictures.items(), SHARD_SOURCES):
            sources = [source_of(uri, stamp) for uri, stamp in group]
            unchanged = set()
            if not self._settings.checksum:
                unchanged = self._catalog.unchanged(sources, retry_failed=self._settings.retry_failed)
            self._count({"unchanged": len(unchanged)})
            unreadable = self._catalog.unreadable(sources)
            again += (source for source in sources if source.uri in unreadable)
            yield from (source for source in sources if source.uri not in unchanged | unreadable)
        yield from again

    def _is_known(self, content_hash: str) -> bool:
        """Tell whether the content is recorded already."""
        return self._catalog.has_content(content_hash, retry_failed=self._settings.retry_failed)

    def _fold(self, batch: Batch) -> None:
        """Count the outcomes of a batch, which are not recorded yet, and report progress."""
        counts = Counter({"unchanged": batch.unchanged})
        failed = self._catalog.failures([known for outcome in batch.outcomes if (known := outcome.known_hash)])
        for outcome in batch.outcomes:
            if outcome.known_hash is None:
                reason = None if outcome.image is None else outcome.image.failure_reason
                kind = "failed" if described_hash(outcome) is None else "described"
            else:
                reason = failed.get(outcome.known_hash)  # the content failed at another place, and does here
                known_here = self._catalog.content_of(outcome.source.uri) == outcome.known_hash
                kind = "unchanged" if known_here else "duplicates" if reason is None else "failed"
            counts[kind] += 1
            if kind == "failed" and reason is not None:
                self._failures[reason] += 1
        self._truncated += sum(
            image.shard_row is not None and image.failure_message is not None
            for outcome in batch.outcomes
            if (image := outcome.image) is not None
        )
        self._count(counts)
        self._gone += batch.gone
        self._on_progress(self._progress)

    def _count(self, more: Mapping[str, int]) -> None:
        counts = {name: getattr(self._progress, name) + count for name, count in more.items()}
        self._progress = replace(self._progress, **counts)

    def annotate(self, found: Found, table: Mapping[str, TableRow]) -> None:
        """Record the metadata of sidecars for the images found, and that of lists and the table for all sources."""
        annotator = Annotator(
            self._catalog, self._remote, self._settings.decoding_threads, SHARD_SOURCES, self._settings.exif_gps
        )
        by_sidecars, unreadable = annotator.set_sidecars(found)
        by_tables, unmatched = annotator.set_tables(found, table)
        self._summary = replace(
            self._summary,
            metadata_changed=by_sidecars + by_tables,
            unmatched_rows=len(unmatched),
            unmatched=tuple(unmatched),
            unreadable_sidecars=unreadable,
        )

    def follow(self, found: Found, missing: Sequence[str] = ()) -> None:
        """Find the recorded sources that no longer exist below the given paths; forget them if settings ask for it.

        The others are marked, and so are copies elsewhere that no longer exist: images show their living sources first.
        What a rule leaves out now is there as far as is known: an image stays, a failure is forgotten.
        """
        recorded = self._catalog.vanished([*found.places, *missing], found.pictures)
        left_out = {uri for uri in recorded if found.is_left_out(uri)}
        folders = tuple(place for place in found.places if place.endswith("/"))
        # Of images that were given one by one, those that had content before.
        named = [uri for uri in self._gone if not uri.startswith(folders) and self._catalog.content_of(uri)]
        unseen = [uri for uri in recorded if not (is_remote(uri) and uri in left_out)]  # not listed: perhaps there
        vanished = tuple(sorted({*gone(unseen, found.unlisted, self._remote), *named}))
        moved = gone_copies(self._catalog, found, vanished)
        self._catalog.mark_vanished([*vanished, *moved], found.pictures)
        if self._settings.prune and vanished:
            vanished = without_doubtful(self._catalog, found, missing, vanished)
            self._catalog.forget_sources(vanished)
        failed = self._catalog.failed_sources(left_out.difference(vanished))
        self._catalog.forget_sources(failed)
        self._summary = replace(
            self._summary,
            vanished=vanished,
            moved=moved,
            left_out=tuple(sorted(left_out.difference(vanished, failed))),
            pruned=self._settings.prune and bool(vanished),
            unlisted=tuple(found.unlisted),
        )

    def name_skipped(self, found: Found) -> None:
        """Record the files and folders that were passed over below the given paths, in place of earlier ones."""
        self._catalog.replace_skipped(found.places, found.unlisted, found.pictures, found.skipped)
        self._summary = replace(self._summary, ignored=found.ignored, skipped=count_kinds(found.skipped.values()))

    def publish(self) -> RunSummary:
        """Publish the next generation if anything changed, and record the run."""
        self._catalog.forget_lost_failures()
        published = publish(self._writer.layout, self._catalog, self._writer.recipe, self._whiteners)
        summary = replace(
            self._summary,
            progress=self._progress,
            failures=dict(self._failures.most_common()),
            truncated=self._truncated,
            failed_images=self._catalog.counts()[FAILED],
            images=published.manifest.image_count,
            generation=published.manifest.number,
            published=published.is_new,
        )
        counted = {name: len(getattr(summary, name)) for name in ("vanished", "moved", "unmatched", "left_out")}
        self._catalog.finish_run(self._id, asdict(summary) | counted)
        return summary
