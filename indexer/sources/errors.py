"""Classify errors of remote sources: transient or not, Retry-After, and the matching OSError.

Each library has its own exception tree. Errors are classified by HTTP status, else by the names of their classes, so
that no library must be installed.
"""

import errno
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from whatwhere.indexer.sources.uris import is_web, shown, without_secrets

_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_GONE_STATUSES = frozenset({404, 410})
_REFUSED_STATUSES = frozenset({401, 403})
# Timeouts, connection resets, truncated bodies, temporary DNS failures.
_TRANSIENT = frozenset(
    {
        "TimeoutError",
        "ConnectionError",
        "ClientConnectionError",
        "ClientPayloadError",
        "HTTPClientError",
        "ResponseStreamingError",
        "IncompleteReadError",
        "IncompleteRead",
        "ResponseParserError",
    }
)
_PERMANENT = frozenset({"SSLError", "ClientSSLError", "CertificateError", "InvalidURL"})
_REFUSED = frozenset({"PermissionError", "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})


def is_transient(error: BaseException) -> bool:
    """Tell whether an error is transient: the same request may succeed later."""
    status = _status_of(error)
    if status is not None:
        return status in _TRANSIENT_STATUSES
    names = _names_of(error)
    return bool(names & _TRANSIENT) and not names & (_PERMANENT | _REFUSED)


def retry_after_s(error: BaseException) -> float | None:
    """Return the seconds of the response's Retry-After header (a number or a date), None without one."""
    asked = next((value for headers in _headers_of(error) if (value := headers.get("retry-after"))), None)
    if asked is None:
        return None
    if asked.strip().isdigit():
        return float(asked)
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return None


def as_os_error(error: BaseException, uri: str, tries: int) -> OSError:
    """Convert an error to FileNotFoundError (404, 410), PermissionError (401, 403, no credentials) or OSError."""
    status = _status_of(error)
    reason = _reason_of(error, status, uri)
    if status in _GONE_STATUSES or (status is None and isinstance(error, FileNotFoundError)):
        return FileNotFoundError(errno.ENOENT, f"not found ({reason})", uri)
    if status in _REFUSED_STATUSES or (status is None and _names_of(error) & _REFUSED):
        return PermissionError(errno.EACCES, f"access denied ({reason})", uri)
    return OSError(errno.EIO, reason if tries == 1 else f"{reason}, after {tries} tries", uri)


def _reason_of(error: BaseException, status: int | None, uri: str) -> str:
    if status is not None:
        known = status in HTTPStatus._value2member_map_
        return f"{status} {HTTPStatus(status).phrase}" if known else str(status)
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    return without_secrets(said) if is_web(uri) else said.replace(uri, shown(uri))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:  # some libraries raise an error from itself
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error of aiohttp, gcsfs or botocore, None without one."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    # Not of its causes: aiohttp's parser uses other codes for a truncated body. Its `code` warns if there is a status.
    name = "status" if hasattr(error, "status") else "code"
    value = getattr(error, name, None)
    return value if isinstance(value, int) and 400 <= value < 600 else None


def _headers_of(error: BaseException) -> Iterator[Mapping[str, str]]:
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):
            yield response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        headers = getattr(cause, "headers", None)
        if isinstance(headers, Mapping):
            yield {name.lower(): value for name, value in headers.items()}


def _names_of(error: BaseException) -> set[str]:
    return {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}
