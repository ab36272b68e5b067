"""OpenTelemetry traces: one span per request, and a child span per stage."""

import importlib
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.request_context import Stage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Tracer:
    """Creates spans of finished requests, as children of the caller's span in `traceparent`."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("whatwhere")

    def request(
        self,
        method: str,
        started_ns: int,
        stages: Iterable[Stage],
        attributes: Mapping[str, str | int],
        metadata: Mapping[str, str],
    ) -> None:
        """Record a request that began at `started_ns` of the monotonic clock and ends now.

        `metadata` is the call metadata with `traceparent`.
        """
        from opentelemetry import propagate, trace  # noqa: PLC0415 - an extra

        offset_ns = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            method,
            context=propagate.extract(metadata),
            kind=trace.SpanKind.SERVER,
            start_time=started_ns + offset_ns,
            attributes={"rpc.system": "grpc", **attributes},
        )
        inside = trace.set_span_in_context(span)
        for stage in stages:
            child = self._tracer.start_span(stage.name, context=inside, start_time=stage.started_ns + offset_ns)
            child.end(stage.ended_ns + offset_ns)
        if attributes.get("rpc.grpc.status_code"):
            span.set_status(trace.StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Send the remaining spans."""
        self._provider.shutdown()


def trace_context() -> dict[str, str]:
    """Return `traceparent` and `tracestate` of the current span of this program; nothing if it has no OpenTelemetry.

    Baggage is not passed on: it can hold anything.
    """
    if "opentelemetry.trace" not in sys.modules:  # then there is no span; importing it would take time
        return {}
    carrier: dict[str, str] = {}
    importlib.import_module("opentelemetry.propagate").inject(carrier)
    return {name: carrier[name] for name in ("traceparent", "tracestate") if name in carrier}


def otlp_tracer() -> Tracer:
    """Return a tracer that sends spans by OTLP over gRPC, configured by the standard environment variables.

    The endpoint is `OTEL_EXPORTER_OTLP_ENDPOINT`. Raises InvalidRequest if the extra `tracing` is not installed.
    """
    try:
        resources: Any = importlib.import_module("opentelemetry.sdk.resources")
        tracing: Any = importlib.import_module("opentelemetry.sdk.trace")
        exporting: Any = importlib.import_module("opentelemetry.sdk.trace.export")
        otlp: Any = importlib.import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
    except ImportError as error:
        raise InvalidRequest(f"traces need OpenTelemetry ({error}): pip install 'whatwhere[tracing]'") from error
    named = resources.Resource.create({"service.name": "whatwhere"}).merge(resources.OTELResourceDetector().detect())
    provider = tracing.TracerProvider(resource=named)
    provider.add_span_processor(exporting.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    return Tracer(provider)
