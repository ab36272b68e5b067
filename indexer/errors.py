"""The exception tree: every error that whatwhere raises on purpose.

Each class carries a `reason` in UPPER_SNAKE, the stable name that programs switch on (it travels as the reason of
`google.rpc.ErrorInfo`). The message names the wrong value and the remedy.
"""

from typing import ClassVar


class WhatwhereError(Exception):
    """Base of all errors raised on purpose. `field` names the request field at fault, where there is one."""

    reason: ClassVar[str] = "WHATWHERE_ERROR"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


# --- what a caller sent -----------------------------------------------------------------------------------------


class InvalidRequest(WhatwhereError):
    """A request field has a value that can never be served."""

    reason = "INVALID_FIELD"


class MissingQuery(InvalidRequest):
    """Neither an image nor the name of a stored image was given."""

    reason = "MISSING_QUERY"


class InvalidRegion(InvalidRequest):
    """A box that is inverted, empty, outside the image or not a number."""

    reason = "INVALID_REGION"


class InvalidPageToken(InvalidRequest):
    """A page token that this server did not make for this request."""

    reason = "INVALID_PAGE_TOKEN"


class PageTokenExpired(InvalidPageToken):
    """A page token of another generation than the one that is being served."""

    reason = "PAGE_TOKEN_EXPIRED"


class InvalidFilter(InvalidRequest):
    """A filter that is no expression, too long or too deep, or compares what cannot be compared."""

    reason = "INVALID_FILTER"


class UnreadableImage(InvalidRequest):
    """Bytes that are not a complete image in a supported format."""

    reason = "UNREADABLE_IMAGE"


class ImageTooManyBytes(InvalidRequest):
    """An encoded image above the byte limit."""

    reason = "IMAGE_TOO_MANY_BYTES"


class ImageTooManyPixels(InvalidRequest):
    """An image whose header announces more pixels than the limit."""

    reason = "IMAGE_TOO_MANY_PIXELS"


class ImageNotFound(WhatwhereError):
    """No indexed image has this name."""

    reason = "IMAGE_NOT_FOUND"


class RegionNotSupported(WhatwhereError):
    """A region on a stored image for a descriptor that keeps no factors (MAC, R-MAC, CroW, GeM)."""

    reason = "REGION_NOT_SUPPORTED"


class DescriptorNotIndexed(WhatwhereError):
    """The collection holds no vectors of the descriptor asked for."""

    reason = "DESCRIPTOR_NOT_INDEXED"


class SourceUnavailable(WhatwhereError):
    """An indexed image whose source file cannot be read any more."""

    reason = "SOURCE_UNAVAILABLE"


# --- what stands on disk ----------------------------------------------------------------------------------------


class CollectionNotFound(WhatwhereError):
    """The directory holds no collection, or one without a published generation."""

    reason = "COLLECTION_NOT_FOUND"


class CollectionMismatch(WhatwhereError):
    """A collection made with another backbone, weights, rank, whitener or format version."""

    reason = "COLLECTION_MISMATCH"


class CollectionCorrupt(WhatwhereError):
    """A file of the collection is missing, torn or contradicts another."""

    reason = "COLLECTION_CORRUPT"


class CollectionLocked(WhatwhereError):
    """Another process is writing to the collection."""

    reason = "COLLECTION_LOCKED"


class CollectionNotWritable(WhatwhereError):
    """The disk is full, fails, or may not be written to."""

    reason = "COLLECTION_NOT_WRITABLE"


class CatalogUnavailable(WhatwhereError):
    """The database server that holds the catalogue is away, or the connection to it was lost."""

    reason = "CATALOG_UNAVAILABLE"


class CatalogRefused(WhatwhereError):
    """The database server is there and lets us not in, or not do what we must: password, database, rights, SSL."""

    reason = "CATALOG_REFUSED"


# --- what it is measured with -----------------------------------------------------------------------------------


class BenchmarkUnreadable(WhatwhereError):
    """A data set whose pictures or ground truth are missing, torn, contradictory, or would run code when read."""

    reason = "BENCHMARK_UNREADABLE"


# --- what the machine lacks -------------------------------------------------------------------------------------


class UnknownName(WhatwhereError):
    """A backbone, descriptor, device or data set that does not exist."""

    reason = "UNKNOWN_NAME"


class WeightsUnavailable(WhatwhereError):
    """Weights that are not here, torn, not those of their checksum, or not of this network."""

    reason = "WEIGHTS_UNAVAILABLE"


class WhitenerUnavailable(WhatwhereError):
    """A whitener that is missing, torn or made for something else."""

    reason = "WHITENER_UNAVAILABLE"


class DeviceUnavailable(WhatwhereError):
    """The device asked for is not on this machine."""

    reason = "DEVICE_UNAVAILABLE"


class VectorLibraryMissing(WhatwhereError):
    """Neither faiss-cpu nor faiss-gpu is installed."""

    reason = "VECTOR_LIBRARY_MISSING"


class ClusterUnavailable(WhatwhereError):
    """Ray is not installed, or there is none at the address."""

    reason = "CLUSTER_UNAVAILABLE"


class WorkersLost(WhatwhereError):
    """The same work lost its worker again and again."""

    reason = "WORKERS_LOST"


class ServerUnreachable(WhatwhereError):
    """No server answered at the address."""

    reason = "SERVER_UNREACHABLE"


# --- what a server refuses --------------------------------------------------------------------------------------


class CredentialsUnreadable(WhatwhereError):
    """A file of tokens, or a certificate or its key, that is missing, torn, or does not fit its other half."""

    reason = "CREDENTIALS_UNREADABLE"


class Unauthenticated(WhatwhereError):
    """No token where one is needed, or one that is unknown, revoked or expired."""

    reason = "UNAUTHENTICATED"


class ScopeMissing(WhatwhereError):
    """A token that may not do this."""

    reason = "SCOPE_MISSING"


class CallMetadataTooLarge(InvalidRequest):
    """More metadata of the call than is read."""

    reason = "CALL_METADATA_TOO_LARGE"


class RequestTooSlow(WhatwhereError):
    """A request whose bytes did not arrive in time."""

    reason = "REQUEST_TOO_SLOW"


class DeadlineExceeded(WhatwhereError):
    """The caller's deadline, or the longest that a request may take, passed before the answer was there."""

    reason = "DEADLINE_EXCEEDED"


class RequestCancelled(WhatwhereError):
    """Nobody waits for the answer any more."""

    reason = "REQUEST_CANCELLED"


class TryAgainLater(WhatwhereError):
    """The same request may succeed after `retry_delay_s`, where that is known."""

    reason = "TRY_AGAIN_LATER"

    def __init__(self, message: str, *, field: str | None = None, retry_delay_s: float | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_delay_s = retry_delay_s


class ServerNotReady(TryAgainLater):
    """A server that is starting or stopping."""

    reason = "SERVER_NOT_READY"


class ObjectStoreUnavailable(TryAgainLater):
    """The object store that holds the collection is away, or refuses."""

    reason = "OBJECT_STORE_UNAVAILABLE"


class VectorStoreUnavailable(TryAgainLater):
    """The server that holds the collection's vectors is away, refuses, or does not answer in time."""

    reason = "VECTOR_STORE_UNAVAILABLE"


class ServerOverloaded(TryAgainLater):
    """More requests than can be queued."""

    reason = "SERVER_OVERLOADED"


class TooManyRequests(ServerOverloaded):
    """More requests at once than one client may have."""

    reason = "TOO_MANY_REQUESTS"
