"""Settings, progress and summary of an indexing run."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from whatwhere.indexer.backbones.names import DEFAULT_DEVICE
from whatwhere.indexer.collection.stores import Stores
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.pipeline.defaults import DEFAULT_BATCH_SIZE
from whatwhere.indexer.pipeline.ray.settings import ClusterSettings
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
    weights: Path | None = None  # a checkpoint of one's own in place of the published one
    precision: str | None = None  # the network's: float32 or bfloat16
    preset: str | None = None  # how descriptors are made of factors, see `whatwhere.indexer.features.descriptors`
    descriptors: tuple[str, ...] | None = None
    whiteners: Path | None = None  # a folder of whiteners in place of the ready-made ones
    device: str = DEFAULT_DEVICE
    batch_size: int = DEFAULT_BATCH_SIZE
    workers: int | None = None  # decoding threads; None: one a core
    checksum: bool = False  # read every file, also those of unchanged size and time
    retry_failed: bool = False
    limits: ImageLimits = field(default_factory=ImageLimits)
    metadata: Path | None = (
        None  # a table of what is known of the pictures, see `whatwhere.indexer.metadata.tables.read_table`
    )
    exif: bool = False  # take along when and by which camera pictures were taken, of those that are read
    exif_gps: bool = False  # ... and where
    prune: bool = False  # forget what is gone from the given paths
    max_requests_per_second: float | None = None  # of what is elsewhere, over all threads
    stores: Stores = field(default_factory=Stores)  # of a new collection, outside of its own files
    cluster: ClusterSettings | None = None  # where pictures are described; None: here

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
