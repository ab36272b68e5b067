"""Assemble a server, run it, and stop it gracefully."""

import asyncio
import gc
import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from types import FrameType
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from whatwhere.indexer.backbones.backbone import choose_device
from whatwhere.indexer.errors import InvalidRequest, ServerNotReady
from whatwhere.service.addresses import cannot_listen, check_free, check_listen, is_local, unix_path
from whatwhere.service.api.admission import WorkerPool
from whatwhere.service.api.event_loop import EventLoop
from whatwhere.service.api.health import Health
from whatwhere.service.api.interceptor import RequestInterceptor
from whatwhere.service.api.servicer import AdminServicer, ImageSearchServicer, WorkerPools
from whatwhere.service.observability.metrics import Metrics
from whatwhere.service.observability.tracing import otlp_tracer
from whatwhere.service.rpc import admin_pb2, admin_pb2_grpc
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc
from whatwhere.service.search.batching import InferenceBatcher
from whatwhere.service.search.hot_swap import LiveSearcher, open_live
from whatwhere.service.search.searcher import Searcher
from whatwhere.service.search.threads import use_threads
from whatwhere.service.security.certificates import Validity
from whatwhere.service.security.connections import (
    ConnectionGuard,
    ConnectionLimits,
    limit_at_accept,
    raise_descriptor_limit,
    room_for,
)
from whatwhere.service.security.tls import CertificateDates, server_credentials
from whatwhere.service.security.tls_files import TlsFiles
from whatwhere.service.security.tokens import TokenFile
from whatwhere.service.settings import Limits, ServerSettings
from whatwhere.service.signals import end_at_once
from whatwhere.service.web.forwarding import TrustedProxies
from whatwhere.service.web.serving import Web

SERVICE = pb.DESCRIPTOR.services_by_name["ImageSearchService"].full_name
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_HARD_METADATA_FACTOR = 4  # above this multiple of the limit, gRPC itself refuses
_STARTS_WITHIN_S = 2.0  # retry delay for clients: opening a collection takes seconds
_LAST_RESPONSES_S = 2.0  # for clients to read the responses, after the last request
_POLL_S = 0.05
_IDLE_MS = 15 * 60 * 1000
_HANDSHAKE_MS = 10 * 1000
_KEEPALIVE_MS = 60 * 1000
_PINGED_MS = 20 * 1000

_Result = TypeVar("_Result")
log = logging.getLogger(__name__)


class Server:
    """A server of one collection. Thread-safe.

    The constructor binds the addresses. After `start` the server answers health, and refuses requests with
    SERVER_NOT_READY. After `open` it serves. Raises InvalidRequest if an address is invalid, cannot be bound, or is not
    allowed without TLS and authentication; CredentialsUnreadable.
    """

    def __init__(self, settings: ServerSettings) -> None:
        for field, address in _listened(settings).items():
            check_listen(address, field, unix=field != "metrics_listen")
        _check_exposure(settings)
        self._settings = settings
        self._live: LiveSearcher | None = None
        self._web: Web | None = None
        self.health_port = self.metrics_port = 0
        self._stopped = False
        self._watching: asyncio.Task[None] | None = None
        tokens = TokenFile(settings.tokens) if settings.tokens is not None else None
        self._metrics = Metrics()
        self._closing = ExitStack()
        with ExitStack() as on_error:
            on_error.callback(self._closing.close)
            self._loop = EventLoop()
            self._closing.callback(self._loop.close)
            tracer = otlp_tracer() if settings.traces else None
            if tracer is not None:
                self._closing.callback(tracer.close)
            batch_size = _batch_size(settings)
            self._batcher = InferenceBatcher(
                batch_size, settings.batching.delay_s, self._metrics.batch, partial(use_threads, settings.cores)
            )
            self._closing.callback(self._batcher.close)
            self._most_connections = room_for(settings.limits.max_connections)
            self._worker_pools = _worker_pools(settings.cores, batch_size, settings.limits)
            self._closing.callback(self._worker_pools.close)
            self._proxies = TrustedProxies(settings.trusted_proxies)
            self._interceptor = RequestInterceptor(
                settings.limits, self._metrics, tokens, tracer, forwarded=self._proxies.client_of
            )
            if settings.metrics_listen is not None:
                self.metrics_port, stop = self._metrics.serve(settings.metrics_listen)
                self._closing.callback(stop)
            self.port = self._loop.run(self._build())
            self._guard = self._guarded()
            self._closing.callback(self._guard.close)
            self._show()
            on_error.pop_all()

    async def _build(self) -> int:
        settings = self._settings
        self._health = Health((SERVICE, ADMIN), self._batcher, asyncio.get_running_loop())
        options = _options(settings, self._most_connections)
        self._servers = [server := grpc.aio.server(interceptors=[self._interceptor], options=options)]
        servicer = ImageSearchServicer(self._opened, self._worker_pools, settings.limits)
        rpc.add_ImageSearchServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call] # generated
        admin = AdminServicer(self._opened, self._worker_pools.searches)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)  # type: ignore[no-untyped-call] # generated
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        if settings.reflection:
            reflection.enable_server_reflection((SERVICE, ADMIN, HEALTH, reflection.SERVICE_NAME), server)
        if settings.health_listen is not None:
            probed = grpc.aio.server(interceptors=[self._interceptor], options=options)
            health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, probed)
            self.health_port = _bind(probed, settings.health_listen, None, "health_listen")
            self._servers.append(probed)
        if settings.web_listen is not None:
            self._web = Web(settings, settings.web_listen, self._interceptor.gateway, self._proxies)
            self._closing.callback(self._web.close)
            _bind(server, self._web.private_address, None)
        return _bind(server, settings.listen, None if settings.tls is None else server_credentials(settings.tls))

    def _guarded(self) -> ConnectionGuard:
        """Limit the connections to all TCP ports."""
        most, limits = self._most_connections, self._settings.limits
        # Where there is room for fewer than wanted, one client takes no more than half.
        per_client = limits.max_connections_per_client if most == limits.max_connections else max(1, most // 2)
        ports = (self.port, self.health_port, self.metrics_port, 0 if self._web is None else self._web.port)
        guard = ConnectionGuard(
            {port for port in ports if port},
            ConnectionLimits(most, min(per_client, limits.max_connections_per_client), self._proxies.networks),
            self._metrics.connection_refused,
        )
        guard.start()
        return guard

    def _opened(self) -> LiveSearcher:
        if self._live is None:
            raise ServerNotReady("the server is starting: try again in a few seconds", retry_delay_s=_STARTS_WITHIN_S)
        return self._live

    def _show_certificate(self, files: TlsFiles) -> None:
        """Add the dates of the certificate to the metrics."""
        dates = CertificateDates(files)

        def of_dates(read: Callable[[Validity], datetime]) -> Callable[[], float]:
            return lambda: math.nan if (current := dates.current) is None else read(current).timestamp()

        name, text = "certificate_not_{}_timestamp_seconds", "When the chain of the certificate {} to be valid."
        self._metrics.gauge(name.format("before"), text.format("begins"), of_dates(lambda dates: dates.begins))
        self._metrics.gauge(name.format("after"), text.format("ceases"), of_dates(lambda dates: dates.ends))

    def _show(self) -> None:
        """Add the gauges to the metrics."""
        if self._settings.tls is not None:
            self._show_certificate(self._settings.tls)
        gauge, worker_pools = self._metrics.gauge, self._worker_pools

        def of_searcher(read: Callable[[Searcher], int]) -> Callable[[], float]:
            return lambda: 0 if self._live is None else read(self._live.searcher)

        gauge("connections", "Open connections of all ports.", self._guard.count)
        gauge("requests_in_flight", "Requests in flight.", lambda: len(self._interceptor.limiter))
        gauge(
            "ready",
            "1 if requests are answered, as reported by the health service.",
            lambda: float(self._health.serving),
        )
        self._metrics.queue("uploads", lambda: worker_pools.uploads.waiting)
        self._metrics.queue("searches", lambda: worker_pools.searches.waiting)
        self._metrics.queue("pictures", lambda: worker_pools.pictures.waiting)
        gauge("images", "Searchable images.", of_searcher(lambda searcher: searcher.image_count))
        gauge("generation", "Generation being served.", of_searcher(lambda searcher: searcher.generation))
        gauge(
            "latest_generation",
            "Newest published generation.",
            of_searcher(lambda searcher: searcher.latest_generation),
        )

    @property
    def addresses(self) -> dict[str, str]:
        """Addresses by name (listen, web, health, metrics), with the actual ports."""
        settings = self._settings
        bound = [
            ("listen", settings.listen, self.port),
            ("web", settings.web_listen, 0 if self._web is None else self._web.port),
            ("health", settings.health_listen, self.health_port),
            ("metrics", settings.metrics_listen, self.metrics_port),
        ]
        return {
            name: address if unix_path(address) is not None else f"{address.rpartition(':')[0]}:{port}"
            for name, address, port in bound
            if address is not None
        }

    def open(self) -> None:
        """Open the collection, load the network, and serve. Raises the errors of `open_live`."""
        self._live = open_live(self._settings, self._batcher, self._health.report_generation)
        self._closing.callback(self._live.close)
        self._live.follow()
        self._loop.run(_call(self._health.opened, self._live))

    def start(self) -> None:
        """Start to answer health and requests."""
        self._loop.run(self._start())

    async def _start(self) -> None:
        self._health.starting()
        for server in self._servers:
            await server.start()
        if self._web is not None:
            await self._web.start()
        self._watching = asyncio.create_task(self._health.watch())

    def drain(self) -> None:
        """Report NOT_SERVING, and keep answering."""
        self._loop.run(_call(self._health.draining))

    def stop(self, grace: float | None) -> None:
        """Refuse new requests, and wait at most `grace` seconds for those in flight; None cancels them at once."""
        if not self._stopped:
            self._stopped = True
            self._loop.run(self._stop(grace))
            self._closing.close()

    async def _stop(self, grace: float | None) -> None:
        self._health.draining()
        search, *probed = self._servers
        if self._web is not None:
            self._web.refuse()
        self._interceptor.end_watchers()
        await asyncio.gather(self._finish(search, grace), *([] if self._web is None else [self._web.stop(grace)]))
        for server in probed:
            await server.stop(None)
        if self._watching is not None:
            self._watching.cancel()

    async def _finish(self, server: grpc.aio.Server, grace: float | None) -> None:
        """Stop the server once the requests in flight are answered, also if a client never reads its responses."""
        stopping = asyncio.create_task(server.stop(grace))
        while not stopping.done() and len(self._interceptor.limiter):
            await asyncio.wait([stopping], timeout=_POLL_S)
        if not stopping.done():
            await asyncio.wait([stopping], timeout=_LAST_RESPONSES_S)
            await server.stop(None)
        await stopping


def create_server(settings: ServerSettings) -> tuple[Server, int]:
    """Bind the addresses, open the collection, and return the server (not started yet) and its port.

    Raises the errors of `Server` and `Server.open`.
    """
    server = Server(settings)
    try:
        server.open()
    except BaseException:
        server.stop(None)
        raise
    return server, server.port


class _StoppedEarly(BaseException):
    """A signal arrived while the server was starting."""


def serve(settings: ServerSettings, on_ready: Callable[[Mapping[str, str]], None]) -> None:
    """Serve until SIGTERM or SIGINT, then let requests in flight finish.

    Calls `on_ready` with `Server.addresses` when the collection is open. A signal before that ends the start. Raises
    as `create_server`.
    """
    stopping, opened = threading.Event(), threading.Event()

    def stop_soon(number: int, _: FrameType | None) -> None:
        signal.signal(number, end_at_once)  # a second signal ends the process at once
        stopping.set()
        if not opened.is_set():
            raise _StoppedEarly

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_soon)
    raise_descriptor_limit()
    with suppress(_StoppedEarly), _stopped_at_the_end(Server(settings), settings.grace_s) as server:
        server.start()
        server.open()
        opened.set()
        log.info("ready", extra=server.addresses)
        on_ready(server.addresses)
        stopping.wait()
        log.info("stopping", extra={"drain_s": settings.drain_s, "grace_s": settings.grace_s})
        server.drain()
        threading.Event().wait(settings.drain_s)
    log.info("stopped")
    gc.freeze()  # otherwise the interpreter looks through PyTorch's objects before it ends: 2.2 s (measured)


@contextmanager
def _stopped_at_the_end(server: Server, grace_s: float) -> Iterator[Server]:
    """Yield the server, and stop it at the end."""
    try:
        yield server
    finally:
        server.stop(grace_s)


async def _call(work: Callable[..., _Result], *arguments: Any) -> _Result:
    return work(*arguments)


# --- parts ----------------------------------------------------------------------------------------------------------


def _batch_size(settings: ServerSettings) -> int:
    return settings.batching.size or (8 if choose_device(settings.device).type == "cuda" else 1)


def _worker_pools(cores: int, batch_size: int, limits: Limits) -> WorkerPools:
    """Create the worker pools. `uploads` has threads for one batch, and one per core to decode the next one.

    The network's thread uses all cores, each thread of a pool one. Measured on two cores: with two cores per thread,
    four clients that request ten boxes get 7.0 instead of 9.0 answers per second; with one core for the network, 16
    uploading clients get 7.5 instead of 8.2; with OpenMP's passive waiting, both are 10 % slower.
    """
    one = partial(use_threads, 1)
    return WorkerPools(
        uploads=WorkerPool("uploads", cores + batch_size, limits.max_queued_uploads, one),
        searches=WorkerPool("searches", cores + 1, limits.max_queued_searches, one),
        pictures=WorkerPool("pictures", cores, limits.max_queued_searches, one),
    )


def _options(settings: ServerSettings, most_connections: int) -> list[tuple[str, int]]:
    limits = settings.limits
    aging = [
        ("grpc.max_connection_age_ms", round(settings.max_connection_age_s * 1000)),  # a tenth more or less, by gRPC
        ("grpc.max_connection_age_grace_ms", round((limits.receive_s + limits.request_s) * 1000)),
    ]
    return [
        *(aging if settings.max_connection_age_s else []),
        ("grpc.max_allowed_incoming_connections", limit_at_accept(most_connections)),
        ("grpc.max_receive_message_length", limits.image.max_bytes + limits.message_overhead_bytes),
        ("grpc.max_metadata_size", _HARD_METADATA_FACTOR * limits.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", _HARD_METADATA_FACTOR * limits.max_metadata_bytes),
        ("grpc.max_concurrent_streams", limits.max_streams_per_connection),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),  # detects clients that vanished without closing
        ("grpc.http2.min_ping_interval_without_data_ms", _PINGED_MS),  # clients may do the same
        ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent half of the traffic
    ]


def _bind(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None, field: str = "listen"
) -> int:
    """Bind an address and return its port, 0 of a Unix socket. Raises InvalidRequest with the reason."""
    check_free(address, field)
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise cannot_listen(address, field, with_tls=credentials is not None) from error
    return 0 if unix_path(address) is not None else port


def _listened(settings: ServerSettings) -> dict[str, str]:
    """Return the addresses to listen on, by field."""
    fields = ("listen", "web_listen", "health_listen", "metrics_listen")
    return {field: address for field in fields if (address := getattr(settings, field)) is not None}


def _check_exposure(settings: ServerSettings) -> None:
    """Raise InvalidRequest if an address beyond loopback lacks TLS or authentication."""
    missing = []
    if settings.tls is None:
        missing.append("TLS (--tls-certificate, --tls-key)")
    if settings.tokens is None and (settings.tls is None or settings.tls.client_ca is None):
        missing.append("tokens or client certificates (--tokens, --tls-client-ca)")
    for field, address in (("listen", settings.listen), ("web_listen", settings.web_listen)):
        if address is not None and missing and not (settings.allow_insecure or is_local(address)):
            raise InvalidRequest(
                f"{address} can be reached from other machines, without {' and without '.join(missing)}: give these, "
                "listen on 127.0.0.1, or use --allow-insecure, which lets anyone search and read the traffic",
                field=field,
            )
