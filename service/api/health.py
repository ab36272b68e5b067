"""What a server says of itself: starting, serving, draining, broken; watched every few seconds."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from whatwhere.service.search.batching import InferenceBatcher
from whatwhere.service.search.hot_swap import LiveSearcher

ALL = ""  # and the search service: whether requests are answered
GENERATION = "whatwhere.v1.Generation"  # whether the newest generation is the one being served
LIVE = "whatwhere.v1.Live"  # whether a restart would not help
_INTERVAL_S = 2.0
_STUCK_S = 60.0  # one batch takes a second, ten exact boxes a few
_FAILURES = 3  # of the network in a row

log = logging.getLogger(__name__)


class HealthServicer(health_pb2_grpc.HealthServicer):
    """The standard service. grpc_health's own waits for each watcher to take a change: one that never reads stops all.

    For one event loop.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, health_pb2.HealthCheckResponse] = {}
        self._changed = asyncio.Event()

    def set(self, service: str, serving: bool) -> None:
        """Change the answer for a service."""
        kind = health_pb2.HealthCheckResponse
        self._statuses[service] = kind(status=kind.SERVING if serving else kind.NOT_SERVING)
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(  # noqa: N802 - the name is the proto's
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """Return the answer of now."""
        status = self._statuses.get(request.service)
        if status is None:
            known = ", ".join(map(repr, self._statuses))
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"service {request.service!r} is unknown; there are: {known}"
            )
            raise AssertionError("abort raises")
        return status

    async def Watch(  # noqa: N802 - the name is the proto's
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Send the answer whenever it is another one, for as long as the caller stays."""
        unknown = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        sent = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, unknown)
            if status != sent:
                await context.write(status)
                sent = status
            await changed.wait()


@dataclass(frozen=True)
class _Fault:
    """Why requests are not answered."""

    reason: str
    restart_helps: bool = False


class Health:
    """Keeps the standard health service's answers true. For one event loop, but for `report_generation`."""

    def __init__(self, services: tuple[str, ...], batcher: InferenceBatcher, loop: asyncio.AbstractEventLoop) -> None:
        self.servicer = HealthServicer()
        self._services = (ALL, *services)
        self._batcher = batcher
        self._loop = loop
        self._live: LiveSearcher | None = None
        self._draining = False
        self._fault: _Fault | None = _Fault("starting")

    @property
    def serving(self) -> bool:
        """Whether requests are answered."""
        return self._fault is None and not self._draining

    def starting(self) -> None:
        """Say that it lives, and does not answer yet."""
        self._tell()

    def opened(self, live: LiveSearcher) -> None:
        """Say that it serves."""
        self._live, self._fault = live, None
        self.servicer.set(GENERATION, True)
        self._tell()

    def draining(self) -> None:
        """Say, for good, that no new requests should come."""
        self._draining = True
        self._tell()

    def report_generation(self, newest: bool) -> None:
        """Say whether the newest generation is served; from any thread."""
        self._loop.call_soon_threadsafe(self.servicer.set, GENERATION, newest)

    async def watch(self) -> None:
        """Look for faults, and for their end, until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            if self._live is None:
                continue
            fault = await asyncio.to_thread(self._look, self._live)
            if fault != self._fault:
                (log.error if fault else log.info)("health", extra={"fault": fault.reason if fault else "none"})
                self._fault = fault
                self._tell()

    def _look(self, live: LiveSearcher) -> _Fault | None:
        """Return what is wrong."""
        if self._batcher.busy_s > _STUCK_S:
            return _Fault(f"the network has not come back for {_STUCK_S:.0f} s", restart_helps=True)
        try:
            if self._batcher.failures >= _FAILURES:
                live.searcher.try_network()
        except Exception as error:  # whatever it is, uploads would meet it too
            return _Fault(f"{type(error).__name__}: {error}", restart_helps=True)
        try:
            live.searcher.try_stores()
        except Exception as error:  # the same
            return _Fault(f"{type(error).__name__}: {error}")
        return None

    def _tell(self) -> None:
        for service in self._services:
            self.servicer.set(service, self.serving)
        self.servicer.set(LIVE, self._fault is None or not self._fault.restart_helps)
