"""What is said where fsspec cannot open a kind of place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from whatwhere.indexer.errors import InvalidRequest

_EXTRAS: Mapping[str, str] = MappingProxyType(
    {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
)


@contextmanager
def opening(scheme: str, place: str, field: str) -> Iterator[None]:
    """Raise InvalidRequest, of this field, where a scheme's library is not here or there is no such scheme."""
    try:
        yield
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        remedy = f"pip install 'whatwhere[{extra}]'" if extra else str(error)
        raise InvalidRequest(f"{place} needs a library that is not here: {remedy}", field=field) from error
    except ValueError as error:
        raise InvalidRequest(f"{place} is no kind of place that fsspec knows", field=field) from error
