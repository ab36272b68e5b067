"""Every number a server is run with, read once at the entry point."""

from dataclasses import dataclass, field
from pathlib import Path

from indexer.filters import MAX_LENGTH
from indexer.images import ImageLimits


@dataclass(frozen=True)
class Limits:
    """What one request may ask for; README.md has the table."""

    image: ImageLimits = field(default_factory=ImageLimits)
    default_page_size: int = 10
    max_page_size: int = 100
    max_results: int = 1000
    max_expansion_count: int = 20
    max_localize_count: int = 20
    default_list_page_size: int = 50
    max_list_page_size: int = 1000
    max_filter_length: int = MAX_LENGTH
    message_overhead_bytes: int = 1024 * 1024  # on top of the image, so that an oversized one gets its named error


@dataclass(frozen=True)
class ServerSettings:
    """How to serve one collection."""

    collection: Path
    listen: str = "127.0.0.1:50051"
    device: str = "auto"
    weights: Path | None = None  # the checkpoint that the collection was made with, where that is one's own
    workers: int = 8  # threads that take requests; the network itself is used by one at a time
    grace_s: float = 10.0  # how long requests in flight may go on after SIGTERM
    refresh_s: float = 1.0  # how often to look for a newer generation; 0: never
    limits: Limits = field(default_factory=Limits)
