"""Convert errors to gRPC statuses, by one table."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from whatwhere.indexer import errors

DOMAIN = "whatwhere"

# One row for each error class; a test checks that none is missing.
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
    errors.CallMetadataTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageNotFound: grpc.StatusCode.NOT_FOUND,
    errors.RegionNotSupported: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DescriptorNotIndexed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SourceUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.ScopeMissing: grpc.StatusCode.PERMISSION_DENIED,
    errors.RequestTooSlow: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.RequestCancelled: grpc.StatusCode.CANCELLED,
    errors.TryAgainLater: grpc.StatusCode.UNAVAILABLE,
    errors.ServerNotReady: grpc.StatusCode.UNAVAILABLE,
    errors.ObjectStoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.VectorStoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.CollectionReplaced: grpc.StatusCode.UNAVAILABLE,
    errors.ServerOverloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyRequests: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnknownName: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CollectionNotFound: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CollectionMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CollectionCorrupt: grpc.StatusCode.DATA_LOSS,
    errors.CollectionLocked: grpc.StatusCode.UNAVAILABLE,
    errors.CollectionNotWritable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CatalogUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.CatalogRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.BenchmarkUnreadable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.WeightsUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.WhitenerUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CredentialsUnreadable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeviceUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.VectorLibraryMissing: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ClusterUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.WorkersLost: grpc.StatusCode.ABORTED,
    errors.ServerUnreachable: grpc.StatusCode.UNAVAILABLE,
}
# Errors whose message is sent to the caller. Other messages may contain paths on the server's disk.
CALLER_ERRORS = (
    errors.InvalidRequest,
    errors.ImageNotFound,
    errors.RegionNotSupported,
    errors.DescriptorNotIndexed,
    errors.SourceUnavailable,
    errors.Unauthenticated,
    errors.ScopeMissing,
    errors.RequestTooSlow,
    errors.DeadlineExceeded,
    errors.RequestCancelled,
    errors.TryAgainLater,
)


def code_of(error: Exception) -> grpc.StatusCode:
    """Return the code of an error; INTERNAL for errors that are not WhatwhereErrors."""
    return STATUS_CODES[type(error)] if isinstance(error, errors.WhatwhereError) else grpc.StatusCode.INTERNAL


def to_status(error: Exception, request_id: str) -> status_pb2.Status:
    """Return the status of an error: one ErrorInfo, a BadRequest for an invalid field, a RetryInfo for a known delay.

    The message of an error that the caller cannot fix contains only the request id; the server's log has the cause.
    """
    code = code_of(error)
    reason = error.reason if isinstance(error, errors.WhatwhereError) else "INTERNAL"
    message = f"the server failed; its log has the cause under request id {request_id}"
    field = None
    if isinstance(error, CALLER_ERRORS):
        message, field = str(error), error.field
    details = [_packed(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata={"request_id": request_id}))]
    if field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, errors.TryAgainLater) and error.retry_delay_s is not None:
        delay = Duration()
        delay.FromTimedelta(timedelta(seconds=error.retry_delay_s))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code.value[0], message=message, details=details)


def _packed(message: Any) -> PackedAny:
    packed = PackedAny()
    packed.Pack(message)
    return packed
