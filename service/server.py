"""Build the server from its parts, and stop it without losing a request."""

import logging
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from indexer.errors import InvalidRequest
from service.interceptors import RequestInterceptor
from service.live import LiveSearcher, open_live
from service.rpc import image_search_pb2 as pb
from service.rpc import image_search_pb2_grpc as rpc
from service.servicer import ImageSearchServicer
from service.settings import ServerSettings

SERVICE = pb.DESCRIPTOR.services_by_name["ImageSearchService"].full_name
GENERATION = "whatwhere.v1.Generation"  # health: whether the newest generation is the one being served

log = logging.getLogger(__name__)


def create_server(settings: ServerSettings) -> tuple[grpc.Server, int]:
    """Open the collection and the network, bind, and return the server, not yet started, with its port.

    Raises the errors of opening them, and InvalidRequest when the address cannot be bound.
    """
    _check_port(settings.listen)
    checks = health.HealthServicer()
    for name in ("", SERVICE, GENERATION):
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    with ExitStack() as on_error:
        live = on_error.enter_context(open_live(settings, partial(_report, checks)))
        server = _assemble(live, checks, settings)
        try:
            port = server.add_insecure_port(settings.listen)
        except RuntimeError as error:
            raise InvalidRequest(f"cannot listen on {settings.listen}: taken, or not this machine's") from error
        live.follow()
        weakref.finalize(server, on_error.pop_all().close)  # the collection is open for as long as its server lives
    return server, port


def _report(checks: health.HealthServicer, newest: bool) -> None:
    status = health_pb2.HealthCheckResponse.SERVING if newest else health_pb2.HealthCheckResponse.NOT_SERVING
    checks.set(GENERATION, status)


def _assemble(live: LiveSearcher, checks: health.HealthServicer, settings: ServerSettings) -> grpc.Server:
    limits = settings.limits
    max_message_bytes = limits.image.max_bytes + limits.message_overhead_bytes
    server = grpc.server(
        ThreadPoolExecutor(settings.workers, "request"),
        interceptors=[RequestInterceptor()],
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),  # gRPC's own limit is 4 MiB
            ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent half of the traffic
        ],
    )
    servicer = ImageSearchServicer(live, limits)
    rpc.add_ImageSearchServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call] # generated
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


def _check_port(address: str) -> None:
    """Raise InvalidRequest for an address without a port that exists: gRPC itself takes 99999 as 34463."""
    port = address.rpartition(":")[2]
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise InvalidRequest(f"{address!r} is not HOST:PORT with a port from 0 to 65535", field="listen")


def serve(settings: ServerSettings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then let requests in flight end; `on_ready` gets the address."""
    server, port = create_server(settings)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    server.start()
    on_ready(f"{settings.listen.rpartition(':')[0]}:{port}")
    stopping.wait()
    log.info("stopping grace_s=%s", settings.grace_s)
    server.stop(settings.grace_s).wait()
