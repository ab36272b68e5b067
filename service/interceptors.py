"""What happens around every request: errors become statuses, a request id, one log line."""

import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from indexer import errors

DOMAIN = "whatwhere"
REQUEST_ID = "x-request-id"
_SERVICE_PREFIX = "/whatwhere."
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

# One row for each error; a test holds that none is missing.
STATUS_CODES: Mapping[type[errors.WhatwhereError], grpc.StatusCode] = {
    errors.WhatwhereError: grpc.StatusCode.INTERNAL,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.MissingQuery: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidRegion: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidPageToken: grpc.StatusCode.INVALID_ARGUMENT,
    errors.PageTokenExpired: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidFilter: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnreadableImage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageTooManyBytes: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageTooManyPixels: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageNotFound: grpc.StatusCode.NOT_FOUND,
    errors.RegionNotSupported: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DescriptorNotIndexed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SourceUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CollectionNotFound: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CollectionMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CollectionCorrupt: grpc.StatusCode.DATA_LOSS,
    errors.CollectionLocked: grpc.StatusCode.UNAVAILABLE,
    errors.CollectionNotWritable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.BenchmarkUnreadable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnknownName: grpc.StatusCode.INVALID_ARGUMENT,
    errors.WeightsUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.WhitenerUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeviceUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.VectorLibraryMissing: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ServerUnreachable: grpc.StatusCode.UNAVAILABLE,
}
# Their messages name places on the server's disk, which are not the caller's business.
_INTERNAL_MATTERS = (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INTERNAL)

log = logging.getLogger(__name__)


class RequestInterceptor(grpc.ServerInterceptor):
    """Wraps the unary methods of our service; health and reflection pass through."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "grpc.RpcMethodHandler[Any, Any] | None"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Return the method's handler with everything around it."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler  # reflection streams
        if not handler_call_details.method.startswith(_SERVICE_PREFIX):
            return handler
        method = handler_call_details.method.rpartition("/")[2]
        request_id = _request_id(handler_call_details.invocation_metadata)
        return grpc.unary_unary_rpc_method_handler(
            _wrapped(handler.unary_unary, method, request_id),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _wrapped(behaviour: Callable[..., Any], method: str, request_id: str) -> Callable[..., Any]:
    def handle(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: RET503 - abort raises
        started = time.monotonic()
        context.send_initial_metadata(((REQUEST_ID, request_id),))
        status = None
        try:
            return behaviour(request, context)
        except Exception as error:
            status = to_status(error, request_id)
            if not isinstance(error, errors.WhatwhereError) or status.code in (code_pb2.INTERNAL, code_pb2.DATA_LOSS):
                log.exception("request_id=%s failed", request_id)
        finally:
            code = code_pb2.Code.Name(status.code) if status else "OK"
            elapsed_ms = (time.monotonic() - started) * 1000
            log.info("method=%s code=%s ms=%.1f request_id=%s", method, code, elapsed_ms, request_id)
        context.abort_with_status(rpc_status.to_status(status))

    return handle


def to_status(error: Exception, request_id: str) -> status_pb2.Status:
    """Return the status of an error: one ErrorInfo, and a BadRequest where a field was wrong.

    An error that is not ours says nothing but the request id, under which the log has the rest.
    """
    code, reason, message = grpc.StatusCode.INTERNAL, "INTERNAL", ""
    field = None
    if isinstance(error, errors.WhatwhereError):
        code, reason, message, field = STATUS_CODES[type(error)], error.reason, str(error), error.field
    if code in _INTERNAL_MATTERS:
        message = f"the server failed; its log has the cause under request id {request_id}"
    details = [_packed(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata={"request_id": request_id}))]
    if field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    return status_pb2.Status(code=code.value[0], message=message, details=details)


def _packed(message: Any) -> PackedAny:
    packed = PackedAny()
    packed.Pack(message)
    return packed


def _request_id(metadata: Any) -> str:
    """Return the caller's request id where it is printable, else a new one."""
    for key, value in metadata or ():
        if key == REQUEST_ID and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return uuid.uuid4().hex
