"""What goes wrong far away: which errors may pass, how long a server asks to wait, and what people are told.

Each library has its own tree of errors. They are told apart by the status that was answered, else by the names of
their classes, so that no library needs to be here for its errors to be known.
"""

import errno
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from whatwhere.indexer.sources.uris import shown

_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_GONE_STATUSES = frozenset({404, 410})
_REFUSED_STATUSES = frozenset({401, 403})
# Timeouts, resets, bodies that end too early, names that cannot be looked up just now.
_PASSING = frozenset(
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
_LASTING = frozenset({"SSLError", "ClientSSLError", "CertificateError", "InvalidURL"})
_REFUSED = frozenset({"PermissionError", "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})


def may_pass(error: BaseException) -> bool:
    """Tell whether the same request may succeed later."""
    status = _status_of(error)
    if status is not None:
        return status in _PASSING_STATUSES
    names = _names_of(error)
    return bool(names & _PASSING) and not names & (_LASTING | _REFUSED)


def asked_wait_s(error: BaseException) -> float | None:
    """Return how many seconds the server asks to wait (Retry-After: seconds, or a date), None where it does not."""
    asked = next((value for headers in _headers_of(error) if (value := headers.get("retry-after"))), None)
    if asked is None:
        return None
    if asked.strip().isdigit():
        return float(asked)
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return None


def named(error: BaseException, uri: str, tries: int) -> OSError:
    """Return the error of the system that an error amounts to: FileNotFoundError, PermissionError, or another."""
    status = _status_of(error)
    what = _words_of(error, status, uri)
    if status in _GONE_STATUSES or (status is None and isinstance(error, FileNotFoundError)):
        return FileNotFoundError(errno.ENOENT, f"nothing is there ({what})", uri)
    if status in _REFUSED_STATUSES or (status is None and _names_of(error) & _REFUSED):
        return PermissionError(errno.EACCES, f"access is refused ({what})", uri)
    return OSError(errno.EIO, what if tries == 1 else f"{what}, after {tries} tries", uri)


def _words_of(error: BaseException, status: int | None, uri: str) -> str:
    if status is not None:
        known = status in HTTPStatus._value2member_map_
        return f"{status} {HTTPStatus(status).phrase}" if known else str(status)
    return f"{type(error).__name__}: {error}".replace(uri, shown(uri)).removesuffix(": ")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:  # some libraries raise an error from itself
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _status_of(error: BaseException) -> int | None:
    """Return the HTTP status that was answered: aiohttp's, gcsfs's or botocore's."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    for name in ("status", "code"):  # not of its causes: aiohttp's parser has codes of its own for a torn body
        value = getattr(error, name, None)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


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
