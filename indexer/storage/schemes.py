"""Convert errors of opening a URI scheme with fsspec to InvalidRequest, and find passwords in URIs."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from whatwhere.indexer.errors import InvalidRequest

_EXTRAS: Mapping[str, str] = MappingProxyType(
    {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
)
# A user name alone is no secret, and part of some addresses: abfs://CONTAINER@ACCOUNT.
_PASSWORD = re.compile(r"(?<=://)[^/?#]*:[^/?#]*@")


def has_password(uri: str) -> bool:
    """Return whether the host part of a URI begins with USER:PASSWORD@."""
    return _PASSWORD.search(uri) is not None


def without_password(uri: str) -> str:
    """Redact USER:PASSWORD in the host part of a URI, for messages."""
    return _PASSWORD.sub("…@", uri, count=1)


@contextmanager
def opening(scheme: str, place: str, field: str) -> Iterator[None]:
    """Raise InvalidRequest, with `field`, if the scheme is unknown or its library is not installed."""
    try:
        yield
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        remedy = f"pip install 'whatwhere[{extra}]'" if extra else str(error)
        raise InvalidRequest(f"{place} needs a library that is not installed: {remedy}", field=field) from error
    except ValueError as error:
        raise InvalidRequest(f"{place} has a scheme that fsspec does not support", field=field) from error
