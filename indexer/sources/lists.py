"""Read lists of images: plain text, CSV, JSON lines or Parquet, local or remote."""

import math
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self
from urllib.parse import urljoin

from whatwhere.indexer.errors import ImageTooManyBytes, InvalidRequest
from whatwhere.indexer.metadata.tables import Row, Table, rows, uri_of_key
from whatwhere.indexer.metadata.values import Metadata, checked, is_64_bit
from whatwhere.indexer.sources.remote import Remote
from whatwhere.indexer.sources.uris import is_remote, is_web, normalized_uri, scheme_of, shown, suffix_of
from whatwhere.indexer.storage.bounded import bounded_lines, open_bounded
from whatwhere.indexer.storage.user_folders import temporary_folder

LIST_SUFFIXES = frozenset({".txt", ".lst", ".csv", ".jsonl", ".ndjson", ".parquet"})
KEYS = ("uri", "path")  # possible key columns; the first present one names the image
MAX_LIST_BYTES = 16 * 1024**3  # a remote list is first copied to the local disk
_ROWS_AT_ONCE = 1024


class ListEntry(NamedTuple):
    """One entry: the URI of an image and its metadata, None if the list format has no metadata."""

    uri: str
    values: Metadata | None


@dataclass(frozen=True)
class ImageList:
    """A list of images, streamed from disk, readable several times; `name` is the path or URI as given."""

    name: str
    suffix: str
    folder: Path | str  # base of relative entries: a local folder, or the URI of a remote list
    open: Callable[[], BinaryIO]

    @classmethod
    def at(cls, place: Path | str, name: str, remote: Remote) -> Self:
        """Open the list at a local path or a remote URI; a remote list is copied to a temporary file.

        Raises InvalidRequest if a remote list cannot be read, or exceeds MAX_LIST_BYTES over HTTP.
        """
        if isinstance(place, Path):
            return cls(name, place.suffix.lower(), place.parent, lambda: open_bounded(place, MAX_LIST_BYTES))
        copied = _copied(place, remote)
        return cls(shown(place), suffix_of(place), place, lambda: copied.path.open("rb"))

    def entries(self) -> Iterator[ListEntry]:
        """Yield all entries in order.

        Raises InvalidRequest, with the line, if an entry names no image, repeats one or has invalid metadata.
        """
        lines: dict[str, int] = {}
        for line, key, values in self._rows():
            where = f"{self.name}, {'row' if self.suffix == '.parquet' else 'line'} {line}"
            uri = self._uri_of(key, where)
            if values is not None and uri in lines:
                raise InvalidRequest(f"{where}: {shown(str(key))!r} is already in line {lines[uri]}", field="paths")
            if values is not None:
                lines[uri] = line
            yield ListEntry(uri, None if values is None else checked(values, where))

    @property
    def has_metadata(self) -> bool:
        """Whether the list format has metadata."""
        return self.suffix not in (".txt", ".lst")

    def _rows(self) -> Iterator[tuple[int, object, Metadata | None]]:
        if not self.has_metadata:
            return self._text_rows()
        if self.suffix == ".parquet":
            return self._parquet_rows()
        return rows(Table(self.name, self.open, KEYS), self.suffix)

    def _text_rows(self) -> Iterator[tuple[int, object, None]]:
        """Yield line number and entry; file names are bytes that may not be UTF-8."""
        try:
            with self.open() as file:
                for line, content in enumerate(bounded_lines(file), start=1):
                    entry = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf") if line == 1 else content).strip()
                    if entry and not entry.startswith("#"):
                        yield line, entry, None
        except OSError as error:
            raise InvalidRequest(f"{self.name} cannot be read: {error.strerror}", field="paths") from error

    def _parquet_rows(self) -> Iterator[Row]:
        """Yield number, key and values of each row; binary columns (e.g. encoded images) are skipped."""
        try:
            import pyarrow  # noqa: PLC0415 - needed for Parquet lists only
            import pyarrow.parquet  # noqa: PLC0415
        except ImportError as error:
            raise InvalidRequest(
                f"{self.name} needs pyarrow, which is not installed: pip install 'whatwhere[parquet]'", field="paths"
            ) from error
        try:
            with self.open() as opened, pyarrow.parquet.ParquetFile(opened) as file:
                names = [field.name for field in file.schema_arrow if not _is_binary(field.type)]
                key = next((name for name in KEYS if name in names), None)
                if key is None:
                    raise InvalidRequest(
                        f"{self.name}: the text column 'uri' or 'path' that names the images is missing",
                        field="paths",
                    )
                number = 0
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
                    for row in batch.to_pylist():
                        number += 1
                        named = row.pop(key)
                        yield number, named, {name: _plain(value) for name, value in row.items()}
        except (pyarrow.ArrowException, OSError) as error:
            raise InvalidRequest(
                f"{self.name}: the list is corrupt or not Parquet ({error}): write it again", field="paths"
            ) from error

    def _uri_of(self, key: object, where: str) -> str:
        try:
            return _uri_of(key, self.folder)
        except ValueError as error:
            named = shown(key) if isinstance(key, str) else key
            raise InvalidRequest(f"{where}: {named!r} {error}", field="paths") from error


def _uri_of(key: object, folder: Path | str) -> str:
    """Return the URI of a list entry; raise ValueError if it cannot name an image."""
    if not isinstance(key, str) or not key.strip():
        raise ValueError("names no image")
    if key.endswith("/"):
        raise ValueError("is a folder: list images only, and pass the folder as a separate path")
    if is_remote(key):
        return normalized_uri(key)
    if isinstance(folder, str):
        return normalized_uri(_joined(folder, key))
    if "\0" in key:
        raise ValueError("is not a file name: it contains a NUL character")
    return uri_of_key(key, folder)


def _joined(list_uri: str, entry: str) -> str:
    """Resolve a relative entry of a remote list; raise ValueError if it is a local file."""
    if scheme_of(entry) == "file" or (entry.startswith("/") and not is_web(list_uri)):
        raise ValueError("is a local file, which only a local list may name")
    return urljoin(list_uri, entry) if is_web(list_uri) else f"{list_uri.rpartition('/')[0]}/{entry}"


class _Copy:
    """A temporary file, deleted when this object is garbage-collected, at the latest when the process exits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        weakref.finalize(self, path.unlink, missing_ok=True)


def _copied(uri: str, remote: Remote) -> _Copy:
    """Copy a list to a temporary file; raise InvalidRequest if it cannot be read."""
    with tempfile.NamedTemporaryFile(
        prefix="whatwhere-", suffix=suffix_of(uri), dir=temporary_folder(), delete=False
    ) as file:
        copy = _Copy(Path(file.name))
        try:
            remote.copy(uri, file, MAX_LIST_BYTES)
        except OSError as error:
            raise InvalidRequest(f"{shown(uri)} cannot be read: {error.strerror}", field="paths") from error
        except ImageTooManyBytes as error:
            raise InvalidRequest(f"{shown(uri)}: the list is too large: {error}", field="paths") from error
    return copy


def _is_binary(kind: Any) -> bool:
    """Tell whether a Parquet column's type contains binary data at any level."""
    import pyarrow.types  # noqa: PLC0415 - as above

    if pyarrow.types.is_nested(kind):
        return any(_is_binary(kind.field(index).type) for index in range(kind.num_fields))
    return any(is_kind(kind) for is_kind in (pyarrow.types.is_binary, pyarrow.types.is_large_binary)) or (
        pyarrow.types.is_fixed_size_binary(kind) or str(kind) == "binary_view"
    )


def _plain(value: object) -> object:
    """Convert a Parquet value to a metadata value: times to text; numbers see `_plain_number`."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | int | float):
        return _plain_number(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _plain_number(value: Decimal | int | float) -> object:
    """Convert NaN and infinity to None, and integers of more than 64 bits to text."""
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if isinstance(value, int):
        return value if is_64_bit(value) else str(value)
    return float(value) if math.isfinite(value) else None
