"""Index files into a collection: scan → decode and describe → append → publish. Run again, it continues."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path

from indexer.backbones import DEFAULT_BACKBONE, DEFAULT_PRECISION, Backbone, choose_device, find_backbone, load_backbone
from indexer.catalog import NewImage, Outcome, Source
from indexer.collection import (
    CollectionWriter,
    Layout,
    Manifest,
    Recipe,
    current_recipe,
    find_whiteners,
    open_for_writing,
    publish,
)
from indexer.describe import Describer, Description
from indexer.errors import InvalidRequest
from indexer.files import path_of_uri
from indexer.images import SHORTER_SIDE, DecodedImage, ImageLimits
from indexer.metadata import Metadata, read_sidecar, read_table, sidecar_of, uri_of_key
from indexer.methods import DEFAULT_DESCRIPTORS, DEFAULT_PRESET, DESCRIPTORS, find_method, pooled_by
from indexer.reading import Loaded, Loader, in_groups, map_ahead, source_of
from indexer.scan import Found, find, gone
from indexer.vectors import AUTO
from indexer.whitening import Whitener

DEFAULT_RANK = 8
MAX_RANK = 64
SHARD_SOURCES = 256  # sources of one shard and one transaction: what a killed run does again, about 15 s on 2 cores

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexSettings:
    """How to index. None means: as the collection was made, or the default where it is new."""

    rank: int | None = None
    backbone: str | None = None
    weights: Path | None = None  # a checkpoint of one's own in place of the published one
    precision: str | None = None  # the network's: float32 or bfloat16
    preset: str | None = None  # how descriptors are made of factors, see `indexer.methods`
    descriptors: tuple[str, ...] | None = None
    whiteners: Path | None = None  # a folder of whiteners in place of the ready-made ones
    device: str = "auto"
    batch_size: int = 8
    workers: int | None = None  # decoding threads; None: one a core
    checksum: bool = False  # read every file, also those of unchanged size and time
    retry_failed: bool = False
    limits: ImageLimits = field(default_factory=ImageLimits)
    metadata: Path | None = None  # a table of what is known of the pictures, see `indexer.metadata.read_table`
    exif: bool = False  # take along when and by which camera pictures were taken, of those that are read
    exif_gps: bool = False  # ... and where
    prune: bool = False  # forget what is gone from the given paths


@dataclass(frozen=True)
class Progress:
    """Where a run stands: sources looked at, of `total`."""

    total: int
    described: int = 0
    failed: int = 0
    duplicates: int = 0
    unchanged: int = 0

    @property
    def done(self) -> int:
        """Sources that need no more work."""
        return self.described + self.failed + self.duplicates + self.unchanged


@dataclass(frozen=True)
class RunSummary:
    """What a run did."""

    progress: Progress
    ignored: int  # files in the given folders whose names are neither those of images nor of their sidecars
    images: int
    generation: int
    published: bool
    vanished: tuple[str, ...] = ()  # sources below the given paths whose files are gone
    pruned: bool = False  # the vanished ones were forgotten
    unlisted: tuple[str, ...] = ()  # folders that could not be listed: nothing below them counts as vanished
    metadata_changed: int = 0  # sources that a table or a sidecar says something else of than before
    unmatched_rows: int = 0  # rows of the table that name none of the files of this run
    torn_sidecars: int = 0  # what earlier ones said is kept


@dataclass
class Chunk:
    """Outcomes and descriptions that will be kept together."""

    outcomes: list[Outcome] = field(default_factory=list)
    descriptions: list[Description] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)


def index_paths(
    paths: Sequence[Path],
    collection: Path,
    settings: IndexSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> RunSummary:
    """Index the files and folders (recursive) at `paths` into `collection` and publish a generation.

    Bad images are recorded with their reason. InvalidRequest when a path does not exist, before anything is done;
    the errors of opening a collection, a backbone and whiteners; finished chunks survive anything.
    """
    settings = settings or IndexSettings()
    table = {} if settings.metadata is None else _by_uri(settings.metadata)
    found = find(paths, skip=collection)
    with _opened(collection, settings, on_progress) as run:
        run.over(list(found.files))
        run.annotate(found, table)
        run.follow(found)
        return run.publish(found.ignored)


def describe_again(
    collection: Path,
    uris: Sequence[str],
    settings: IndexSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> RunSummary:
    """Index exactly the files at these URIs again and publish: what a lost shard held, for one.

    A file that is not there any more counts as failed and stays in the catalogue as it is.
    """
    with _opened(collection, settings or IndexSettings(), on_progress) as run:
        run.over([path_of_uri(uri) for uri in uris])
        return run.publish()


def publish_collection(collection: Path) -> Manifest:
    """Publish what the catalogue holds now as the next generation, unless the live one is just that, and return it.

    CollectionNotFound where there is none, CollectionLocked while another process writes.
    """
    with open_for_writing(collection) as writer:
        return publish_changes(writer)


def publish_changes(writer: CollectionWriter) -> Manifest:
    """Publish what the catalogue of an open collection holds now, through its own whiteners; return the live one."""
    whiteners = find_whiteners(writer.layout, writer.recipe)
    published = publish(writer.layout, writer.catalog, writer.recipe, whiteners) or Manifest.live(writer.layout)
    assert published is not None  # the first is always published
    return published


@contextmanager
def _opened(collection: Path, settings: IndexSettings, on_progress: Callable[[Progress], None]) -> Iterator["_Run"]:
    """Lock and open a collection, made when it is not there, to index by the settings."""
    known = current_recipe(Layout(collection))
    backbone = _backbone(collection, known, settings)
    recipe = _recipe(known, backbone, settings)
    if known is not None:
        known.require_same(recipe, collection)  # before whiteners of another network are missed
    describer = Describer(backbone, recipe.rank, recipe.pooled)
    whiteners = find_whiteners(Layout(collection), recipe, settings.whiteners)
    with open_for_writing(collection, recipe) as writer:
        yield _Run(writer, describer, whiteners, settings, on_progress)


def _by_uri(path: Path) -> dict[str, Metadata]:
    """Read a table; its rows by the URI of the file that they name."""
    return {uri_of_key(key, path.parent): values for key, values in read_table(path).items()}


def _backbone(collection: Path, known: Recipe | None, settings: IndexSettings) -> Backbone:
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
    methods = {name: find_method(name, preset) for name in chosen}
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
    """One pass over the files: decoding threads ahead, one describing thread, chunks kept as they fill.

    Whatever is done after the pass ends the same when it is done again, so that a killed run can be continued.
    """

    def __init__(
        self,
        writer: CollectionWriter,
        describer: Describer,
        whiteners: Mapping[str, Sequence[Whitener]],
        settings: IndexSettings,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._writer = writer
        self._catalog = writer.catalog
        self._describer = describer
        self._whiteners = whiteners
        self._settings = settings
        self._on_progress = on_progress
        self._progress = Progress(total=0)
        self._summary = RunSummary(self._progress, 0, 0, 0, published=False)
        self._chunk = Chunk()
        self._id = writer.catalog.start_run()

    def over(self, files: Sequence[Path]) -> None:
        """Index every file."""
        self._count(total=len(files))
        wanted = self._settings
        load = Loader(self._catalog, wanted.limits, wanted.retry_failed, wanted.exif, wanted.exif_gps)
        with ThreadPoolExecutor(wanted.workers or os.cpu_count(), "decode") as pool:
            # Two batches ahead keep the network fed and memory bounded.
            loaded = map_ahead(pool, load, self._changed(files), ahead=2 * wanted.batch_size)
            for batch in in_groups(loaded, wanted.batch_size):
                self._take(batch)
        self._keep()
        self._on_progress(self._progress)

    def annotate(self, found: Found, table: Mapping[str, Metadata]) -> None:
        """Set what sidecars say of the files found, and a table of any file; equal values write nothing."""
        changed = torn = 0
        for group in in_groups(found.files, SHARD_SOURCES):
            said = {path.as_uri(): _sidecar(path) if path in found.with_sidecar else {} for path in group}
            torn += sum(values is None for values in said.values())
            changed += self._catalog.set_metadata(
                "sidecar", {uri: values for uri, values in said.items() if values is not None}
            )
        for rows in in_groups(table.items(), SHARD_SOURCES):
            changed += self._catalog.set_metadata("file", dict(rows))
        unmatched = table.keys() - {path.as_uri() for path in found.files} if table else ()
        if unmatched:
            log.warning("metadata rows=%d name none of the files, one is %s", len(unmatched), min(unmatched))
        self._summary = replace(
            self._summary, metadata_changed=changed, unmatched_rows=len(unmatched), torn_sidecars=torn
        )

    def follow(self, found: Found) -> None:
        """Find out which sources are gone from where this run looked, and forget them where that is asked for."""
        recorded = self._catalog.vanished(found.places, (path.as_uri() for path in found.files))
        vanished = tuple(gone(recorded, found.unlisted))
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
        manifest = published or Manifest.live(self._writer.layout)
        assert manifest is not None  # the first is always published
        summary = replace(
            self._summary,
            progress=self._progress,
            ignored=ignored,
            images=manifest.image_count,
            generation=manifest.number,
            published=published is not None,
        )
        self._catalog.finish_run(self._id, asdict(summary) | {"vanished": len(summary.vanished)})
        return summary

    def _changed(self, files: Iterable[Path]) -> Iterator[Source]:
        """Yield what must be looked at; what could not be read before comes last, so that it shifts no batch."""
        again: list[Source] = []
        for group in in_groups(files, SHARD_SOURCES):
            sources = [source_of(path) for path in group]
            unchanged = set()
            if not self._settings.checksum:
                unchanged = self._catalog.unchanged(sources, retry_failed=self._settings.retry_failed)
            self._count(unchanged=len(unchanged))
            unreadable = self._catalog.unreadable(sources)
            again += (source for source in sources if source.uri in unreadable)
            yield from (source for source in sources if source.uri not in unchanged | unreadable)
        yield from again

    def _take(self, batch: Sequence[Loaded]) -> None:
        fresh: dict[str, DecodedImage] = {}
        for item in batch:
            if item.decoded is not None and item.content_hash is not None and not self._is_known(item.content_hash):
                fresh.setdefault(item.content_hash, item.decoded)
        described = self._describer.describe([decoded.pixels for decoded in fresh.values()]) if fresh else []
        rows = dict(zip(fresh, count(len(self._chunk.descriptions)), strict=False))
        self._chunk.descriptions += described
        for item in batch:
            self._chunk.outcomes.append(self._outcome(item, rows))
        self._on_progress(self._progress)
        if len(self._chunk.outcomes) >= SHARD_SOURCES:
            self._keep()

    def _is_known(self, content_hash: str) -> bool:
        """Tell whether the content is in this chunk or was kept since it was decoded."""
        return content_hash in self._chunk.hashes or self._catalog.has_content(
            content_hash, retry_failed=self._settings.retry_failed
        )

    def _outcome(self, item: Loaded, rows: dict[str, int]) -> Outcome:
        if item.error is not None:
            self._count(failed=1)
            log.warning("failed source=%s reason=%s", item.source.uri, item.error.reason)
            image = NewImage(
                item.content_hash,
                item.byte_count,
                failure_reason=item.error.reason,
                failure_message=str(item.error),
            )
            return Outcome(item.source, image=image)
        assert item.content_hash is not None
        row = rows.pop(item.content_hash, None)
        if row is None or item.decoded is None:
            known_here = self._catalog.content_of(item.source.uri) == item.content_hash
            self._count(**{"unchanged" if known_here else "duplicates": 1})
            return Outcome(item.source, known_hash=item.content_hash, metadata=_of_exif(item))
        self._count(described=1)
        self._chunk.hashes.add(item.content_hash)
        decoded = item.decoded
        image = NewImage(item.content_hash, item.byte_count, decoded.width, decoded.height, decoded.mime_type, row)
        return Outcome(item.source, image=image, metadata=_of_exif(item))

    def _keep(self) -> None:
        if self._chunk.outcomes:
            self._writer.append(self._chunk.outcomes, self._chunk.descriptions)
            self._chunk = Chunk()

    def _count(self, **more: int) -> None:
        counts = {name: getattr(self._progress, name) + count for name, count in more.items()}
        self._progress = replace(self._progress, **counts)


def _of_exif(item: Loaded) -> dict[str, Metadata]:
    """Return what is kept with the image, in one transaction: a later run does not read the picture again."""
    return {} if item.exif is None else {"exif": item.exif}


def _sidecar(path: Path) -> Metadata | None:
    """Return what the sidecar of a picture says; None when it cannot be read."""
    try:
        return read_sidecar(sidecar_of(path))
    except InvalidRequest as error:
        log.warning("sidecar torn source=%s error=%s", path.as_uri(), error)
        return None
