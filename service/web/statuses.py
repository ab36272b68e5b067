"""Convert errors to HTTP: one table from gRPC codes, and the JSON form of google.rpc.Status."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from starlette.responses import JSONResponse

from whatwhere.indexer import errors
from whatwhere.service.api.status import DOMAIN, to_status

# Google's mapping; a test checks that it is complete.
HTTP_STATUSES: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
# HTTP has specific statuses for these.
_SPECIAL: Mapping[str, int] = {
    errors.ImageTooManyBytes.reason: 413,
    errors.RequestTooSlow.reason: 408,
    errors.CallMetadataTooLarge.reason: 431,
}
_STOPPING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # the codes of a stopping server
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """Describe a refusal before the gRPC call; `reason` is that of its ErrorInfo."""

    http_status: int
    code: grpc.StatusCode
    reason: str
    message: str

    def answer(self, request_id: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """Return the response."""
        detail = PackedAny()
        detail.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata={"request_id": request_id}))
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=[detail])
        return _response(status, self.http_status, headers)


def failed(failure: Exception, request_id: str) -> JSONResponse:
    """Return the response to a failed call; an unexpected error shows only the request id."""
    status = None
    if isinstance(failure, grpc.aio.AioRpcError):
        status = _status_of(failure)
        if status is None and failure.code() in _STOPPING:
            failure = errors.ServerNotReady("the server is stopping: try again later")
        elif status is None:
            facts = {"code": failure.code().name, "details": failure.details(), "request_id": request_id}
            log.error("call failed", extra=facts)
    if status is None:
        status = to_status(failure, request_id)
    return _response(status, http_status(status))


def _status_of(failure: grpc.aio.AioRpcError) -> Any:
    """Return the status of a call, None if gRPC itself made the error."""
    try:
        return rpc_status.from_call(failure)  # type: ignore[arg-type] # the stubs know only blocking calls
    except (ValueError, DecodeError):
        return None


def http_status(status: Any) -> int:
    """Return the HTTP status of a google.rpc.Status."""
    found = error_details_pb2.ErrorInfo()
    reasons = [found.reason for detail in status.details if detail.Unpack(found)]
    return next((_SPECIAL[reason] for reason in reasons if reason in _SPECIAL), HTTP_STATUSES[_BY_NUMBER[status.code]])


def _response(status: Any, http: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    details = [json_format.MessageToDict(detail) for detail in status.details]
    code = _BY_NUMBER[status.code]
    error = {"code": http, "status": code.name, "message": status.message, "details": details}
    added = dict(headers or {}) | {"cache-control": "no-store"}
    if code is grpc.StatusCode.UNAUTHENTICATED:
        added["www-authenticate"] = "Bearer"
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(retry):
            added["retry-after"] = str(max(1, math.ceil(retry.retry_delay.ToTimedelta().total_seconds())))
    return JSONResponse({"error": error}, http, added)
