"""Every number a server is run with, read once at the entry point."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from whatwhere.indexer.backbones.names import DEFAULT_DEVICE
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.metadata.limits import MAX_LENGTH
from whatwhere.service.security.tls_files import TlsFiles

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What may be asked for; README.md has the table."""

    # --- one request
    image: ImageLimits = field(default_factory=lambda: ImageLimits(max_bytes=32 * _MIB))
    default_page_size: int = 10
    max_page_size: int = 100
    max_results: int = 1000
    max_expansion_count: int = 20
    max_localize_count: int = 20
    default_list_page_size: int = 50
    max_list_page_size: int = 1000
    max_filter_length: int = MAX_LENGTH
    max_regions: int = 16
    max_mask_pixels: int = 4_000_000
    max_sample_size: int = 100
    max_similar_count: int = 20
    max_compared_images: int = 16
    default_compared_rank: int = 5  # looked at: 4 still join gymnasts' legs with the crowd, 6 add a corner of the hall
    max_compared_rank: int = 16
    min_picture_px: int = 16
    max_picture_px: int = 2048  # of the longer side of a thumbnail or a heatmap
    max_metadata_bytes: int = 8 * 1024  # of the call: names and values
    message_overhead_bytes: int = _MIB  # on top of the image, so that an oversized one gets its named error
    request_s: float = 60.0  # the longest that a request may take, whatever the caller's deadline
    receive_s: float = 20.0  # for its bytes to arrive in

    # --- all of them; times the message size this is also what requests can hold of memory, up to three times at once
    max_concurrent: int = 64
    max_concurrent_per_client: int = 32
    max_queued_uploads: int = 16  # that wait for a thread: twice as many would wait twice as long
    max_queued_searches: int = 64
    max_streams_per_connection: int = 100
    max_watchers: int = 1024  # of health, one of each client of several servers, and of reflection: they may stay
    max_watchers_per_client: int = 64
    max_web_connections: int = 512
    max_web_connections_per_client: int = 64
    web_idle_s: float = 30.0  # how long a connection may stay between two requests, or without reading an answer


@dataclass(frozen=True)
class Batching:
    """How the network is fed: pictures that wait together are described together, `size` at most.

    None: 8 on CUDA, and 1 on a CPU, where batches are no faster (measured: 8.2 uploads a second by fours, 8.5 one at a
    time) and the first of them waits for the last. A lone picture waits `delay_s` for company.
    """

    size: int | None = None
    delay_s: float = 0.0


@dataclass(frozen=True)
class ServerSettings:
    """How to serve one collection."""

    collection: Path | str  # a directory, or the URI of an object store's folder
    listen: str = "127.0.0.1:50051"
    device: str = DEFAULT_DEVICE
    weights: Path | None = None  # the checkpoint that the collection was made with, where that is one's own
    refresh_s: float = 1.0  # how often to look for a newer generation; 0: never
    tls: TlsFiles | None = None
    tokens: Path | None = None
    allow_insecure: bool = False  # listen beyond loopback without TLS and without knowing who asks
    web_listen: str | None = None  # the page and the JSON form of the methods, by the same TLS and tokens
    web_hosts: tuple[str, ...] = ()  # names that the web address goes by beside its own and its certificate's
    health_listen: str | None = None  # a plain-text address for probes
    metrics_listen: str | None = None
    reflection: bool = True
    traces: bool = False
    threads: int | None = None  # cores to use; None: all that this process may
    remembered_uploads: int = 256  # whose descriptions are kept, 40 KB each: the next page needs no network; 0: none
    grace_s: float = 10.0  # how long requests in flight may go on after SIGTERM
    drain_s: float = 0.0  # how long to go on answering before that, while health says NOT_SERVING
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)

    @property
    def cores(self) -> int:
        """How many cores to use."""
        return self.threads or len(os.sched_getaffinity(0))
