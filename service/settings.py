"""Settings of a server, read once at the entry point."""

from dataclasses import dataclass, field
from pathlib import Path

from whatwhere.indexer.backbones.names import DEFAULT_DEVICE
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.images.limits import UPLOAD_LIMITS, ImageLimits
from whatwhere.indexer.metadata.limits import MAX_LENGTH
from whatwhere.service.security.tls_files import TlsFiles

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Limits of requests; service/README.md has the table."""

    # --- one request
    image: ImageLimits = UPLOAD_LIMITS
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
    max_picture_px: int = 2048  # longer side of a thumbnail or a heatmap
    max_metadata_bytes: int = 8 * 1024  # of a call: names and values
    message_overhead_bytes: int = _MIB  # added to the image's, so that an oversized image is refused by its own error
    request_s: float = 60.0  # time limit of a request, regardless of the caller's deadline
    receive_s: float = 20.0  # time limit for its bytes to arrive

    # --- all requests; max_concurrent times the message size bounds their memory, up to a factor of three
    max_concurrent: int = 64
    max_concurrent_per_client: int = 32
    max_queued_uploads: int = 16  # a longer queue only means longer waiting
    max_queued_searches: int = 64
    max_streams_per_connection: int = 100
    max_watchers: int = 1024  # streams of health (one per client of several servers) and reflection
    max_watchers_per_client: int = 64
    max_connections: int = 2048  # of all ports together, before authentication
    max_connections_per_client: int = 256  # per IPv4 address, and per /64 network of IPv6
    max_web_connections: int = 512
    max_web_connections_per_client: int = 64
    web_idle_s: float = 30.0  # of a connection between requests, or while the client does not read


@dataclass(frozen=True)
class Batching:
    """Batching of queued uploads: at most `size` images per batch; an image waits up to `delay_s` seconds for others.

    `size` None means 8 on CUDA and 1 on a CPU, where batches are no faster (measured: 8.2 uploads per second in batches
    of four, 8.5 one at a time) and add latency.
    """

    size: int | None = None
    delay_s: float = 0.0


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a server of one collection."""

    collection: Path | str  # a directory or the URI of an object store
    listen: str = "127.0.0.1:50051"
    device: str = DEFAULT_DEVICE
    weights: Path | None = None  # the checkpoint that the collection was indexed with, if it was one of your own
    refresh_s: float = 1.0  # interval of checks for a newer generation; 0: reported, not served
    tls: TlsFiles | None = None
    tokens: Path | None = None
    allow_insecure: bool = False  # listen beyond loopback without TLS or authentication
    web_listen: str | None = None  # HTTP: the page and the JSON API, with the same TLS and tokens
    web_hosts: tuple[str, ...] = ()  # further host names of the web address, besides its own and its certificate's
    web_path: str = ""  # the path under which a proxy publishes the page, if it passes this path on
    trusted_proxies: tuple[str, ...] = ()  # addresses and networks whose X-Forwarded-… headers are believed
    health_listen: str | None = None  # health in plain text, for probes
    metrics_listen: str | None = None
    reflection: bool = True
    traces: bool = False
    threads: int | None = None  # cores to use; None: all available to this process
    remembered_uploads: int = 256  # size of the description cache, 40 KB each; 0: no cache
    grace_s: float = 10.0  # time for requests in flight after SIGTERM
    max_connection_age_s: float = 1800.0  # of gRPC connections, so that clients find new servers; 0: no limit
    drain_s: float = 0.0  # time before that in which health is NOT_SERVING and requests are still answered
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)

    @property
    def cores(self) -> int:
        """Number of cores to use."""
        return self.threads or available_cores()
