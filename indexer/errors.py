"""Define the exception tree: every error that whatwhere raises on purpose.

Each class has a stable `reason` in UPPER_SNAKE for programs to switch on; gRPC sends it as the reason of
`google.rpc.ErrorInfo`. The message names the wrong value and the remedy.
"""

from typing import ClassVar


class WhatwhereError(Exception):
    """Base class of all errors raised on purpose; `field` names the invalid request field, if any."""

    reason: ClassVar[str] = "WHATWHERE_ERROR"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


# --- invalid requests ---------------------------------------------------------------------------------------------


class InvalidRequest(WhatwhereError):
    """A request field has an invalid value."""

    reason = "INVALID_FIELD"


class MissingQuery(InvalidRequest):
    """The request has neither an image nor the name of a stored image."""

    reason = "MISSING_QUERY"


class InvalidRegion(InvalidRequest):
    """A box is inverted, empty, outside the image, or not finite."""

    reason = "INVALID_REGION"


class InvalidPageToken(InvalidRequest):
    """The page token was not issued by this server for this request."""

    reason = "INVALID_PAGE_TOKEN"


class PageTokenExpired(InvalidPageToken):
    """The page token was issued for a generation that is no longer served."""

    reason = "PAGE_TOKEN_EXPIRED"


class InvalidFilter(InvalidRequest):
    """The filter has a syntax error, exceeds a limit, or compares incompatible types."""

    reason = "INVALID_FILTER"


class UnreadableImage(InvalidRequest):
    """The bytes are not a complete image in a supported format."""

    reason = "UNREADABLE_IMAGE"


class ImageTooManyBytes(InvalidRequest):
    """The encoded image exceeds the byte limit."""

    reason = "IMAGE_TOO_MANY_BYTES"


class ImageTooManyPixels(InvalidRequest):
    """The image header declares more pixels than the limit."""

    reason = "IMAGE_TOO_MANY_PIXELS"


class ImageNotFound(WhatwhereError):
    """No indexed image has this name."""

    reason = "IMAGE_NOT_FOUND"


class RegionNotSupported(WhatwhereError):
    """A region of a stored image needs factors, which the descriptor does not use (MAC, R-MAC, CroW, GeM)."""

    reason = "REGION_NOT_SUPPORTED"


class DescriptorNotIndexed(WhatwhereError):
    """The collection has no vectors of the requested descriptor."""

    reason = "DESCRIPTOR_NOT_INDEXED"


class SourceUnavailable(WhatwhereError):
    """The source file of an indexed image can no longer be read."""

    reason = "SOURCE_UNAVAILABLE"


# --- stored collections -------------------------------------------------------------------------------------------


class CollectionNotFound(WhatwhereError):
    """The directory has no collection, or the collection has no published generation."""

    reason = "COLLECTION_NOT_FOUND"


class CollectionMismatch(WhatwhereError):
    """The collection was made with a different backbone, weights, rank, whitener or format version."""

    reason = "COLLECTION_MISMATCH"


class CollectionCorrupt(WhatwhereError):
    """A file of the collection is missing, corrupt, or inconsistent with another."""

    reason = "COLLECTION_CORRUPT"


class CollectionLocked(WhatwhereError):
    """Another process is writing to the collection."""

    reason = "COLLECTION_LOCKED"


class CollectionNotWritable(WhatwhereError):
    """The disk is full, read-only or failing, or permission to write is missing."""

    reason = "COLLECTION_NOT_WRITABLE"


class CatalogUnavailable(WhatwhereError):
    """The database server of the catalog is unreachable, or the connection was lost."""

    reason = "CATALOG_UNAVAILABLE"


class CatalogRefused(WhatwhereError):
    """The database server rejected the connection or an operation: password, database, privileges, TLS."""

    reason = "CATALOG_REFUSED"


# --- benchmarks ---------------------------------------------------------------------------------------------------


class BenchmarkUnreadable(WhatwhereError):
    """Images or ground truth of a data set are missing, corrupt, inconsistent, or would run code when read."""

    reason = "BENCHMARK_UNREADABLE"


# --- environment --------------------------------------------------------------------------------------------------


class UnknownName(WhatwhereError):
    """The backbone, descriptor, device or data set does not exist."""

    reason = "UNKNOWN_NAME"


class WeightsUnavailable(WhatwhereError):
    """The weights are missing or corrupt, fail their checksum, or do not fit the network."""

    reason = "WEIGHTS_UNAVAILABLE"


class WhitenerUnavailable(WhatwhereError):
    """The whitener is missing or corrupt, or was fitted to other descriptors."""

    reason = "WHITENER_UNAVAILABLE"


class DeviceUnavailable(WhatwhereError):
    """The requested device is not available on this machine."""

    reason = "DEVICE_UNAVAILABLE"


class VectorLibraryMissing(WhatwhereError):
    """Neither faiss-cpu nor faiss-gpu is installed."""

    reason = "VECTOR_LIBRARY_MISSING"


class ClusterUnavailable(WhatwhereError):
    """Ray is not installed, or no Ray cluster answers at the address."""

    reason = "CLUSTER_UNAVAILABLE"


class WorkersLost(WhatwhereError):
    """Workers died repeatedly on the same work."""

    reason = "WORKERS_LOST"


class ServerUnreachable(WhatwhereError):
    """No server answered at the address."""

    reason = "SERVER_UNREACHABLE"


# --- rejected by the server ---------------------------------------------------------------------------------------


class CredentialsUnreadable(WhatwhereError):
    """A token file, certificate or private key is missing or corrupt, or certificate and key do not match."""

    reason = "CREDENTIALS_UNREADABLE"


class Unauthenticated(WhatwhereError):
    """The bearer token is missing, unknown, revoked or expired."""

    reason = "UNAUTHENTICATED"


class ScopeMissing(WhatwhereError):
    """The token lacks the scope that the call requires."""

    reason = "SCOPE_MISSING"


class CallMetadataTooLarge(InvalidRequest):
    """The metadata of the call exceeds the size limit."""

    reason = "CALL_METADATA_TOO_LARGE"


class RequestTooSlow(WhatwhereError):
    """The bytes of the request did not arrive in time."""

    reason = "REQUEST_TOO_SLOW"


class DeadlineExceeded(WhatwhereError):
    """The client's deadline or the server's request time limit passed before the response was ready."""

    reason = "DEADLINE_EXCEEDED"


class RequestCancelled(WhatwhereError):
    """The client cancelled the request."""

    reason = "REQUEST_CANCELLED"


class TryAgainLater(WhatwhereError):
    """The same request may succeed later, after `retry_delay_s` seconds if that is known."""

    reason = "TRY_AGAIN_LATER"

    def __init__(self, message: str, *, field: str | None = None, retry_delay_s: float | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_delay_s = retry_delay_s


class ServerNotReady(TryAgainLater):
    """The server is starting or stopping."""

    reason = "SERVER_NOT_READY"


class ObjectStoreUnavailable(TryAgainLater):
    """The object store of the collection is unreachable or denies access."""

    reason = "OBJECT_STORE_UNAVAILABLE"


class VectorStoreUnavailable(TryAgainLater):
    """The vector database of the collection is unreachable, denies access, or does not respond in time."""

    reason = "VECTOR_STORE_UNAVAILABLE"


class CollectionReplaced(TryAgainLater):
    """The collection was removed, or replaced by another one, while it was open."""

    reason = "COLLECTION_REPLACED"


class ServerOverloaded(TryAgainLater):
    """The request queue is full."""

    reason = "SERVER_OVERLOADED"


class TooManyRequests(ServerOverloaded):
    """The client has more concurrent requests than allowed."""

    reason = "TOO_MANY_REQUESTS"
