"""Index files into a collection: scan → decode and describe → append → publish. Run again, it continues."""

import hashlib
import logging
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

from indexer import whitening
from indexer.backbones import DEFAULT_BACKBONE, DEFAULT_PRECISION, Backbone, choose_device, find_backbone, load_backbone
from indexer.catalog import Catalog, NewImage, Outcome, Source
from indexer.collection import (
    CollectionWriter,
    Layout,
    Manifest,
    Recipe,
    open_for_writing,
    publish,
    stored_whiteners,
)
from indexer.describe import Describer, Description
from indexer.errors import CollectionNotFound, InvalidRequest, UnreadableImage, WhatwhereError
from indexer.files import path_of_uri, printable
from indexer.images import SHORTER_SIDE, SUFFIXES, DecodedImage, ImageLimits, check_byte_count, decode_image
from indexer.methods import DEFAULT_DESCRIPTORS, DEFAULT_PRESET, DESCRIPTORS, find_method, pooled_by

DEFAULT_RANK = 8
MAX_RANK = 64
SHARD_SOURCES = 256  # sources of one shard and one transaction: what a killed run does again, about 15 s on 2 cores
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

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
    """What a run did. `ignored` counts files in the given folders whose names are not those of images."""

    progress: Progress
    ignored: int
    images: int
    generation: int
    published: bool


@dataclass(frozen=True)
class Loaded:
    """A source after reading: decoded, or known by content, or failed."""

    source: Source
    content_hash: str | None = None
    byte_count: int = 0
    decoded: DecodedImage | None = None
    error: WhatwhereError | None = None


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
    files, ignored = scan(paths, skip=collection)
    known = _known_recipe(collection)
    backbone = _backbone(collection, known, settings)
    recipe = _recipe(known, backbone, settings)
    describer = Describer(backbone, recipe.rank, pooled_by(recipe.methods))
    whiteners = _whiteners(collection, recipe, describer, settings)
    with open_for_writing(collection, recipe) as writer:
        run_id = writer.catalog.start_run()
        progress = _Run(writer, describer, settings, on_progress).over(files)
        published = publish(writer.layout, writer.catalog, recipe, whiteners)
        manifest = published or Manifest.load(writer.layout.generation(writer.layout.current_number() or 0))
        summary = RunSummary(progress, ignored, manifest.image_count, manifest.number, published is not None)
        writer.catalog.finish_run(run_id, asdict(summary))
    return summary


def scan(paths: Sequence[Path], skip: Path | None = None) -> tuple[list[Path], int]:
    """Return the image files at `paths`, sorted within each folder, and how many other files the folders held.

    A file that is named is taken whatever it is called; in folders the suffix decides. Links to folders are not
    followed, and the folder `skip` is left out.
    """
    found: dict[Path, None] = {}
    ignored = 0
    left_out = None if skip is None else _absolute(skip)
    for path in paths:
        if path.is_dir():
            for folder, folders, names in os.walk(path):
                folders[:] = sorted(name for name in folders if _absolute(Path(folder, name)) != left_out)
                images = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
                ignored += len(names) - len(images)
                found |= dict.fromkeys(_absolute(Path(folder, name)) for name in images)
        elif path.exists():
            found[_absolute(path)] = None
        else:
            raise InvalidRequest(f"{path} does not exist: give a folder or an image file", field="paths")
    return list(found), ignored


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _known_recipe(collection: Path) -> Recipe | None:
    """Return the collection's own recipe, None for a new one."""
    try:
        return Recipe.load(Layout(collection))
    except CollectionNotFound:
        return None


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
    found = {find_method(name, preset).name for name in chosen}
    return Recipe(
        backbone.spec.name,
        backbone.spec.layer,
        backbone.weights_sha256,
        rank,
        SHORTER_SIDE,
        descriptors=tuple(name for name in DESCRIPTORS if name in found),
        precision=backbone.precision,
        preset=preset,
    )


def _whiteners(
    collection: Path, recipe: Recipe, describer: Describer, settings: IndexSettings
) -> dict[str, tuple[whitening.Whitener, ...]]:
    """Return the whiteners of the settings, else those the collection uses, else the ready-made ones."""
    layout = Layout(collection)
    number = layout.current_number()
    if settings.whiteners is None and number is not None:
        manifest = Manifest.load(layout.generation(number))
        return {name: stored_whiteners(layout, manifest, name) for name in manifest.indexes}
    return {
        method.name: tuple(
            whitening.find(describer.whitener_key(rows), settings.whiteners) for rows in method.whiteners
        )
        for method in recipe.methods
    }


class _Run:
    """One pass over the files: decoding threads ahead, one describing thread, chunks kept as they fill."""

    def __init__(
        self,
        writer: CollectionWriter,
        describer: Describer,
        settings: IndexSettings,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._writer = writer
        self._describer = describer
        self._settings = settings
        self._on_progress = on_progress
        self._progress = Progress(total=0)
        self._chunk = Chunk()

    def over(self, files: Sequence[Path]) -> Progress:
        """Index every file and return the final counts."""
        self._count(total=len(files))
        load = _Loader(self._writer.catalog, self._settings)
        with ThreadPoolExecutor(self._settings.workers or os.cpu_count(), "decode") as pool:
            # Two batches ahead keep the network fed and memory bounded.
            loaded = map_ahead(pool, load, self._changed(files), ahead=2 * self._settings.batch_size)
            for batch in in_groups(loaded, self._settings.batch_size):
                self._take(batch)
        self._keep()
        self._on_progress(self._progress)
        return self._progress

    def _changed(self, files: Iterable[Path]) -> Iterator[Source]:
        """Yield what must be looked at; what could not be read before comes last, so that it shifts no batch."""
        again: list[Source] = []
        for group in in_groups(files, SHARD_SOURCES):
            sources = [source_of(path) for path in group]
            unchanged = set()
            if not self._settings.checksum:
                unchanged = self._writer.catalog.unchanged(sources, retry_failed=self._settings.retry_failed)
            self._count(unchanged=len(unchanged))
            unreadable = self._writer.catalog.unreadable(sources)
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
        return content_hash in self._chunk.hashes or self._writer.catalog.has_content(
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
            known_here = self._writer.catalog.content_of(item.source.uri) == item.content_hash
            self._count(**{"unchanged" if known_here else "duplicates": 1})
            return Outcome(item.source, known_hash=item.content_hash)
        self._count(described=1)
        self._chunk.hashes.add(item.content_hash)
        decoded = item.decoded
        image = NewImage(item.content_hash, item.byte_count, decoded.width, decoded.height, decoded.mime_type, row)
        return Outcome(item.source, image=image)

    def _keep(self) -> None:
        if self._chunk.outcomes:
            self._writer.append(self._chunk.outcomes, self._chunk.descriptions)
            self._chunk = Chunk()

    def _count(self, **more: int) -> None:
        counts = {name: getattr(self._progress, name) + count for name, count in more.items()}
        self._progress = replace(self._progress, **counts)


def source_of(path: Path) -> Source:
    """Return the source as the file system describes it now; a file that vanished counts as empty."""
    try:
        status = path.stat()
    except OSError:
        return Source(path.as_uri(), 0, 0)
    return Source(path.as_uri(), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class _Loader:
    """Reads, hashes and decodes one source; runs in the decoding threads."""

    catalog: Catalog
    settings: IndexSettings

    def __call__(self, source: Source) -> Loaded:
        path = path_of_uri(source.uri)
        content_hash = None
        try:
            content = read_file(path, self.settings.limits)
            content_hash = hashlib.sha256(content).hexdigest()
            if self.catalog.has_content(content_hash, retry_failed=self.settings.retry_failed):
                return Loaded(source, content_hash)
            decoded = decode_image(content, printable(path), limits=self.settings.limits)
        except WhatwhereError as error:
            return Loaded(source, content_hash, source.byte_count, error=error)
        except OSError as error:
            reason = UnreadableImage(f"{printable(path)}: cannot be read: {error.strerror}")
            return Loaded(source, None, source.byte_count, error=reason)
        return Loaded(source, content_hash, len(content), decoded)


def read_file(path: Path, limits: ImageLimits) -> bytes:
    """Return a file's bytes; what is not a regular file (a pipe would block for ever) or too large is not opened."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage(f"{printable(path)}: not a regular file")
    check_byte_count(printable(path), status.st_size, limits)
    return path.read_bytes()


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """Yield `function` of each item in order, computed in `pool` at most `ahead` items in advance."""
    waiting: deque[Future[_Result]] = deque()
    remaining = iter(items)
    try:
        waiting.extend(pool.submit(function, item) for item in islice(remaining, ahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()


def in_groups(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of `size` items, the last one shorter."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
