"""Convert the status of a failed call to an error of `whatwhere.indexer.errors`."""

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from whatwhere.indexer import errors
from whatwhere.service.client.unreachable import Way


def to_error(failure: Any, way: Way) -> errors.WhatwhereError:
    """Return the error that the status's ErrorInfo names; without ErrorInfo, the error of its code."""
    details = _details(failure)
    info, violations, retry = (_find(details, kind) for kind in _KINDS)
    kind = _BY_REASON.get(info.reason)
    message = failure.details() or ""
    if kind is None:
        kind, message = _by_code(failure.code(), message, way)
    field = violations.field_violations[0].field if violations.field_violations else None
    if not issubclass(kind, errors.TryAgainLater):
        return kind(message, field=field)
    delay_s = retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None
    return kind(message, field=field, retry_delay_s=delay_s)


def _by_code(code: grpc.StatusCode, details: str, way: Way) -> tuple[type[errors.WhatwhereError], str]:
    """Return the error and its message for a status from gRPC itself or from a proxy."""
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _exhausted(details)
    kinds = {
        grpc.StatusCode.DEADLINE_EXCEEDED: (
            errors.DeadlineExceeded,
            f"no answer from {way.address} within {way.timeout_s:g} s: set a longer timeout, or check the server with "
            f"`whatwhere health`{way.proxied}",
        ),
        grpc.StatusCode.UNAVAILABLE: (
            errors.ServerUnreachable,
            f"no answer from {way.address}: {way.why(details)}",
        ),
        grpc.StatusCode.UNAUTHENTICATED: (errors.Unauthenticated, f"{way.address} requires a token: {details}"),
        grpc.StatusCode.PERMISSION_DENIED: (errors.ScopeMissing, f"{way.address} does not allow this: {details}"),
        grpc.StatusCode.CANCELLED: (errors.RequestCancelled, f"the call was cancelled: {details}"),
    }
    return kinds.get(code, (errors.WhatwhereError, f"{code.name}: {details}"))


def _exhausted(details: str) -> tuple[type[errors.WhatwhereError], str]:
    """Return the error by gRPC's message: it has one code for several refusals."""
    if "essage larger than max" in details:
        return errors.ImageTooManyBytes, f"the image is too large for the server: {details}"
    if "metadata size exceeds" in details:
        return errors.CallMetadataTooLarge, f"the call's metadata (the token) is too large: {details}"
    return errors.ServerOverloaded, f"the server is overloaded: {details}"


_KINDS = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)


def _details(failure: Any) -> Any:
    try:
        status = rpc_status.from_call(failure)
    except (ValueError, DecodeError):  # a proxy has replaced the server's status
        return ()
    return () if status is None else status.details


def _find(details: Any, kind: Any) -> Any:
    """Return the detail of this kind, or an empty one."""
    found = kind()
    for detail in details:
        if detail.Unpack(found):
            break
    return found


def _errors_by_reason(base: type[errors.WhatwhereError]) -> dict[str, type[errors.WhatwhereError]]:
    found = {base.reason: base}
    for derived in base.__subclasses__():
        found |= _errors_by_reason(derived)
    return found


_BY_REASON = _errors_by_reason(errors.WhatwhereError)
