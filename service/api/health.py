"""Health of the server (starting, serving, draining, broken), checked every few seconds."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from whatwhere.service.search.batching import InferenceBatcher
from whatwhere.service.search.hot_swap import LiveSearcher

ALL = ""  # like the named services: whether requests are answered
GENERATION = "whatwhere.v1.Generation"  # whether the newest generation is being served
LIVE = "whatwhere.v1.Live"  # whether a restart would not help
_INTERVAL_S = 2.0
_STUCK_S = 60.0  # a batch takes about a second, ten exact boxes a few
_FAILURES = 3  # consecutive ones of the network

log = logging.getLogger(__name__)


class HealthServicer(health_pb2_grpc.HealthServicer):
    """The standard health service. Belongs to one event loop.

    grpc_health's own servicer awaits every watcher on a change: one watcher that never reads blocks all.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, health_pb2.HealthCheckResponse] = {}
        self._changed = asyncio.Event()

    def set(self, service: str, serving: bool) -> None:
        """Set the status of a service."""
        kind = health_pb2.HealthCheckResponse
        self._statuses[service] = kind(status=kind.SERVING if serving else kind.NOT_SERVING)
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(  # noqa: N802 - the name is the proto's
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """Return the current status; NOT_FOUND for an unknown service."""
        status = self._statuses.get(request.service)
        if status is None:
            known = ", ".join(map(repr, self._statuses))
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"service {request.service!r} is unknown: use one of {known}"
            )
            raise AssertionError("abort raises")
        return status

    async def Watch(  # noqa: N802 - the name is the proto's
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Send the status, and every change of it, until the caller disconnects."""
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
    """The reason why requests are not answered."""

    reason: str
    restart_helps: bool = False


class Health:
    """Updates the statuses of the health service. Belongs to one event loop, except for `report_generation`."""

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
        """Report that the server is alive and not ready yet."""
        self._publish()

    def opened(self, live: LiveSearcher) -> None:
        """Report that the server is ready."""
        self._live, self._fault = live, None
        self.servicer.set(GENERATION, True)
        self._publish()

    def draining(self) -> None:
        """Report NOT_SERVING until the server ends, so that clients use another one."""
        self._draining = True
        self._publish()

    def report_generation(self, newest: bool) -> None:
        """Report whether the newest generation is being served; from any thread."""
        self._loop.call_soon_threadsafe(self.servicer.set, GENERATION, newest)

    async def watch(self) -> None:
        """Check for faults and their end until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            if self._live is None:
                continue
            fault = await asyncio.to_thread(self._find_fault, self._live)
            if fault != self._fault:
                (log.error if fault else log.info)("health", extra={"fault": fault.reason if fault else "none"})
                self._fault = fault
                self._publish()

    def _find_fault(self, live: LiveSearcher) -> _Fault | None:
        """Return the current fault, None if there is none."""
        if self._batcher.busy_s > _STUCK_S:
            return _Fault(
                f"the network has been busy with one batch for more than {_STUCK_S:.0f} s", restart_helps=True
            )
        try:
            if self._batcher.failures >= _FAILURES:
                live.searcher.try_network()
        except Exception as error:  # uploads would fail in the same way
            return _Fault(f"{type(error).__name__}: {error}", restart_helps=True)
        try:
            live.searcher.try_stores()
        except Exception as error:  # searches would fail in the same way
            return _Fault(f"{type(error).__name__}: {error}")
        return None

    def _publish(self) -> None:
        for service in self._services:
            self.servicer.set(service, self.serving)
        self.servicer.set(LIVE, self._fault is None or not self._fault.restart_helps)
