"""Prometheus metrics of a server."""

from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from whatwhere.service.addresses import cannot_listen
from whatwhere.service.observability.background import dropped_lines
from whatwhere.service.observability.scraping import start_http_server
from whatwhere.service.request_context import Stage

_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60)
_STAGE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCH = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Metrics:
    """Metrics of one server, in a separate registry: several servers can run in one process."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._requests = Counter(
            "whatwhere_requests", "Finished requests, by method and gRPC code.", ("method", "code"), registry=registry
        )
        self._seconds = Histogram(
            "whatwhere_request_seconds",
            "Time from a request's head to its response, by method; without requests refused because of overload.",
            ("method",),
            buckets=_REQUEST_S,
            registry=registry,
        )
        self._stages = Histogram(
            "whatwhere_stage_seconds",
            "Time in each stage: receive, queue, decode, activations, factorise, search, localise, explain.",
            ("stage",),
            buckets=_STAGE_S,
            registry=registry,
        )
        self._shed = Counter(
            "whatwhere_requests_shed",
            "Requests refused because of overload, by reason.",
            ("reason",),
            registry=registry,
        )
        self._queues = Gauge("whatwhere_queue_depth", "Queued requests, by worker pool.", ("lane",), registry=registry)
        self._batches = Histogram(
            "whatwhere_batch_size", "Images described in one batch.", buckets=_BATCH, registry=registry
        )
        self._connections_refused = Counter(
            "whatwhere_connections_refused",
            "Connections closed because there were too many, of one client or in total.",
            ("reason",),
            registry=registry,
        )
        for reason in ("client", "total"):
            self._connections_refused.labels(reason)
        registry.register(_DroppedLines())

    def gauge(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is computed at every scrape."""
        Gauge(f"whatwhere_{name}", documentation, registry=self.registry).set_function(value)

    def queue(self, worker_pool: str, depth: Callable[[], float]) -> None:
        """Add the queue depth of a worker pool."""
        self._queues.labels(worker_pool).set_function(depth)

    def request(self, method: str, code: str, seconds: float, stages: Iterable[Stage]) -> None:
        """Count an admitted request with its duration and stages."""
        self._requests.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)
        for stage in stages:
            self._stages.labels(stage.name).observe(stage.seconds)

    def shed(self, method: str, code: str, reason: str) -> None:
        """Count a refused request."""
        self._requests.labels(method, code).inc()
        self._shed.labels(reason).inc()

    def connection_refused(self, reason: str) -> None:
        """Count a connection that was closed because there were too many."""
        self._connections_refused.labels(reason).inc()

    def batch(self, size: int) -> None:
        """Count a batch of `size` images."""
        self._batches.observe(size)

    def serve(self, address: str) -> tuple[int, Callable[[], None]]:
        """Serve the metrics at HOST:PORT, and return the port and a function that stops serving.

        Raises InvalidRequest if the address cannot be bound.
        """
        host, _, port = address.rpartition(":")
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), self.registry)
        except OSError as error:
            raise cannot_listen(address, "metrics_listen", error) from error

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return server.server_port, stop


class _DroppedLines(Collector):
    """Reads the number of dropped log lines at every scrape."""

    def collect(self) -> Iterable[Metric]:
        """Yield the counter."""
        yield CounterMetricFamily(
            "whatwhere_log_lines_dropped",
            "Log lines that were dropped because nobody read standard error.",
            value=dropped_lines(),
        )
