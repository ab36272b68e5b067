"""OpenTelemetry traces of requests: a span each, and one for each of its stages. Sole home of OpenTelemetry."""

import importlib
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.request_context import Stage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Tracer:
    """Makes spans of finished requests; the caller's span, in `traceparent`, is their parent."""

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
        """Record a request that began at `started_ns` of the monotonic clock and ends now."""
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
        """Send what has not been sent yet."""
        self._provider.shutdown()


def otlp_tracer() -> Tracer:
    """Send spans by OTLP over gRPC to where the standard variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, …).

    InvalidRequest where the extra is not installed.
    """
    try:
        resources: Any = importlib.import_module("opentelemetry.sdk.resources")
        tracing: Any = importlib.import_module("opentelemetry.sdk.trace")
        exporting: Any = importlib.import_module("opentelemetry.sdk.trace.export")
        otlp: Any = importlib.import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
    except ImportError as error:
        raise InvalidRequest(f"traces need OpenTelemetry: pip install 'whatwhere[tracing]' ({error})") from error
    named = resources.Resource.create({"service.name": "whatwhere"}).merge(resources.OTELResourceDetector().detect())
    provider = tracing.TracerProvider(resource=named)
    provider.add_span_processor(exporting.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    return Tracer(provider)
