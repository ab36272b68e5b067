"""Convert errors of opening a URI scheme with fsspec to InvalidRequest."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from whatwhere.indexer.errors import InvalidRequest

_EXTRAS: Mapping[str, str] = MappingProxyType(
    {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
)


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
