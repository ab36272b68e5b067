"""Settings, progress and summary of an indexing run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from whatwhere.indexer.backbones.names import DEFAULT_DEVICE
from whatwhere.indexer.collection.stores import Stores
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.pipeline.defaults import DEFAULT_BATCH_SIZE
from whatwhere.indexer.pipeline.ray.settings import ClusterSettings
from whatwhere.indexer.sources.exclusions import Exclusions
from whatwhere.indexer.sources.remote import RateLimit, Remote


@dataclass(frozen=True)
class ReadSettings:
    """How sources are read: one value for this process and for workers on other machines."""

    limits: ImageLimits = field(default_factory=ImageLimits)
    retry_failed: bool = False  # describe contents again that failed before
    exif: bool = False  # keep the time and the camera of photographs that are read
    exif_gps: bool = False  # keep the position, too
    checksum: bool = False  # read every file, also if its size and time are unchanged
    max_requests_per_second: float | None = None  # to remote hosts, over all threads; None: no limit

    def remote(self) -> Remote:
        """Return a reader of remote URIs. Raises InvalidRequest if the request rate is not above 0 and finite."""
        rate = self.max_requests_per_second
        if rate is not None and not 0 < rate < float("inf"):
            raise InvalidRequest(f"{rate} requests per second is out of range: give more than 0", field="rate")
        return Remote(rate=RateLimit(rate))

    def for_one_of(self, workers: int) -> "ReadSettings":
        """Return the settings of each of several workers: together they keep the request rate."""
        rate = self.max_requests_per_second
        return replace(self, max_requests_per_second=None if rate is None else rate / workers)


@dataclass(frozen=True)
class IndexSettings:
    """Settings of an indexing run. None means the collection's own value, or the default for a new collection."""

    rank: int | None = None
    backbone: str | None = None
    weights: Path | None = None  # a checkpoint to use instead of the published one
    precision: str | None = None  # the network's: float32 or bfloat16
    preset: str | None = None  # how descriptors are built from factors, see `whatwhere.indexer.features.descriptors`
    descriptors: tuple[str, ...] | None = None
    whiteners: Path | None = None  # a folder of whiteners to use instead of the published ones
    device: str = DEFAULT_DEVICE
    batch_size: int = DEFAULT_BATCH_SIZE
    threads: int | None = None  # cores to use; None: all available to this process
    workers: int | None = None  # decoding threads; None: one per core
    checksum: bool = False  # read every file, even if its size and time are unchanged
    retry_failed: bool = False
    limits: ImageLimits = field(default_factory=ImageLimits)
    metadata: Path | None = None  # a table of metadata, see `whatwhere.indexer.metadata.tables.read_table`
    exif: bool = False  # store the time and the camera of the photographs that are read
    exif_gps: bool = False  # store the position, too, also from sidecars of other programs
    exclude: tuple[str, ...] = ()  # gitignore patterns, relative to each given folder: what they match is left out
    include_hidden: bool = False  # take hidden files and folders, whose names begin with a dot
    prune: bool = False  # delete sources that no longer exist below the given paths, which may be gone themselves
    max_requests_per_second: float | None = None  # to remote hosts, over all threads; None: no limit
    stores: Stores = field(default_factory=Stores)  # external stores of a new collection
    cluster: ClusterSettings | None = None  # the Ray cluster that describes images; None: this process

    @property
    def cores(self) -> int:
        """Number of cores to use."""
        return self.threads or available_cores()

    @property
    def decoding_threads(self) -> int:
        """Number of threads that read and decode in this process."""
        return self.workers or self.cores

    def exclusions(self) -> Exclusions:
        """Return the rules for files in folders. Raises InvalidRequest if a pattern is not gitignore's."""
        return Exclusions(self.exclude, self.include_hidden)

    def reading(self) -> ReadSettings:
        """Return the settings of reading sources."""
        return ReadSettings(
            limits=self.limits,
            retry_failed=self.retry_failed,
            exif=self.exif,
            exif_gps=self.exif_gps,
            checksum=self.checksum,
            max_requests_per_second=self.max_requests_per_second,
        )


@dataclass(frozen=True)
class Progress:
    """Progress of a run: numbers of sources, `total` of them in all."""

    total: int
    described: int = 0
    failed: int = 0
    duplicates: int = 0
    unchanged: int = 0

    @property
    def done(self) -> int:
        """The number of finished sources."""
        return self.described + self.failed + self.duplicates + self.unchanged


@dataclass(frozen=True)
class RunSummary:
    """Result of a run."""

    progress: Progress
    ignored: int  # files in the searched folders that were passed over
    images: int
    generation: int
    published: bool
    vanished: tuple[str, ...] = ()  # sources below the given paths whose files no longer exist
    pruned: bool = False  # whether the vanished sources were deleted
    moved: tuple[str, ...] = ()  # sources elsewhere whose files no longer exist, of images that this run found
    unlisted: tuple[str, ...] = ()  # folders that could not be listed; sources below them do not count as vanished
    metadata_changed: int = 0  # sources whose metadata from tables or sidecars changed
    unmatched_rows: int = 0  # rows of the table that match no file of this run
    unreadable_sidecars: int = 0  # invalid sidecars; the metadata of their last valid versions stays
    skipped: Mapping[str, int] = field(default_factory=dict)  # passed over, by kind (".mp4", "hidden folder")
    failures: Mapping[str, int] = field(default_factory=dict)  # failed in this run, by reason (UNREADABLE_IMAGE)
    truncated: int = 0  # described in this run though the file lacks its end; `images` lists them
    failed_images: int = 0  # contents in the collection that failed, now or in an earlier run
    unmatched: tuple[str, ...] = ()  # the names in `unmatched_rows`, as the table writes them
    left_out: tuple[str, ...] = ()  # sources of earlier runs that a rule leaves out now; their images stay
