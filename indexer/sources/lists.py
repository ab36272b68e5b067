"""Lists of pictures: plain text, CSV, JSON lines, Parquet; on this machine or elsewhere."""

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
from whatwhere.indexer.metadata.values import Metadata, checked
from whatwhere.indexer.sources.remote import Remote
from whatwhere.indexer.sources.uris import given_uri, is_remote, is_web, scheme_of, shown, suffix_of

LIST_SUFFIXES = frozenset({".txt", ".lst", ".csv", ".jsonl", ".ndjson", ".parquet"})
KEYS = ("uri", "path")  # the columns that may name the picture, the first that is there does
MAX_REMOTE_BYTES = 16 * 1024**3  # of a list from elsewhere, which is copied to this machine's disk first
_ROWS_AT_ONCE = 1024


class ListEntry(NamedTuple):
    """One line: the URI of a picture, and what is known of it, None where the list has no place for that."""

    uri: str
    values: Metadata | None


@dataclass(frozen=True)
class ImageList:
    """A list of pictures, which can be read several times, never all of it in memory. `name` is as it was given."""

    name: str
    suffix: str
    folder: Path | str  # that relative entries are relative to; a URI, that of the list itself, for one of elsewhere
    open: Callable[[], BinaryIO]

    @classmethod
    def at(cls, place: Path | str, name: str, remote: Remote) -> Self:
        """Return the list at a path, or at the URI of elsewhere, of which a copy is made.

        InvalidRequest where that cannot be read.
        """
        if isinstance(place, Path):
            return cls(name, place.suffix.lower(), place.parent, lambda: place.open("rb"))
        copied = _copied(place, remote)
        return cls(shown(place), suffix_of(place), place, lambda: copied.path.open("rb"))

    def entries(self) -> Iterator[ListEntry]:
        """Yield all entries in order; InvalidRequest, with the line, for one that names no picture, or one again."""
        lines: dict[str, int] = {}
        for line, key, values in self._rows():
            where = f"{self.name}, {'row' if self.suffix == '.parquet' else 'line'} {line}"
            uri = self._uri_of(key, where)
            if values is not None and uri in lines:
                raise InvalidRequest(f"{where}: {shown(str(key))!r} stands in line {lines[uri]} already", field="paths")
            if values is not None:
                lines[uri] = line
            yield ListEntry(uri, None if values is None else checked(values, where))

    @property
    def has_metadata(self) -> bool:
        """Whether entries have a place for what is known of them."""
        return self.suffix not in (".txt", ".lst")

    def _rows(self) -> Iterator[tuple[int, object, Metadata | None]]:
        if not self.has_metadata:
            return self._text_rows()
        if self.suffix == ".parquet":
            return self._parquet_rows()
        return rows(Table(self.name, self.open, KEYS), self.suffix)

    def _text_rows(self) -> Iterator[tuple[int, object, None]]:
        """Yield line and entry; names of files are bytes, which need not be UTF-8."""
        try:
            with self.open() as file:
                for line, content in enumerate(file, start=1):
                    entry = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf") if line == 1 else content).strip()
                    if entry and not entry.startswith("#"):
                        yield line, entry, None
        except OSError as error:
            raise InvalidRequest(f"{self.name} cannot be read: {error.strerror}", field="paths") from error

    def _parquet_rows(self) -> Iterator[Row]:
        """Yield number, key and values of each row; columns of bytes (the pictures themselves, say) are passed over."""
        try:
            import pyarrow  # noqa: PLC0415 - who has no Parquet does not pay for it
            import pyarrow.parquet  # noqa: PLC0415
        except ImportError as error:
            raise InvalidRequest(
                f"{self.name} needs a library that is not here: pip install 'whatwhere[parquet]'", field="paths"
            ) from error
        try:
            with self.open() as opened, pyarrow.parquet.ParquetFile(opened) as file:
                names = [field.name for field in file.schema_arrow if not _is_binary(field.type)]
                key = next((name for name in KEYS if name in names), None)
                if key is None:
                    raise InvalidRequest(
                        f"{self.name}: no column of text is called 'uri' or 'path': it names the pictures",
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
                f"{self.name}: the list is torn or no Parquet ({error}): write it again", field="paths"
            ) from error

    def _uri_of(self, key: object, where: str) -> str:
        try:
            return _uri_of(key, self.folder)
        except ValueError as error:
            named = shown(key) if isinstance(key, str) else key
            raise InvalidRequest(f"{where}: {named!r} {error}", field="paths") from error


def _uri_of(key: object, folder: Path | str) -> str:
    """Return the URI of what an entry of a list names; ValueError where it is no picture's."""
    if not isinstance(key, str) or not key.strip():
        raise ValueError("names no picture")
    if key.endswith("/"):
        raise ValueError("is a folder: a list names pictures, give the folder as a path of its own")
    if is_remote(key):
        return given_uri(key)
    if isinstance(folder, str):
        return given_uri(_joined(folder, key))
    if "\0" in key:
        raise ValueError("is no name of a file")
    return uri_of_key(key, folder)


def _joined(manifest: str, entry: str) -> str:
    """Return the URI of what a list of elsewhere names without one; ValueError for a file of this machine."""
    if scheme_of(entry) == "file" or (entry.startswith("/") and not is_web(manifest)):
        raise ValueError("is a file of this machine, which only a list on this machine may name")
    return urljoin(manifest, entry) if is_web(manifest) else f"{manifest.rpartition('/')[0]}/{entry}"


class _Copy:
    """A temporary file, which goes when nobody holds this any more, at the latest with the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        weakref.finalize(self, path.unlink, missing_ok=True)


def _copied(uri: str, remote: Remote) -> _Copy:
    """Copy a list to a temporary file; InvalidRequest where it cannot be read."""
    with tempfile.NamedTemporaryFile(prefix="whatwhere-", suffix=suffix_of(uri), delete=False) as file:
        copy = _Copy(Path(file.name))
        try:
            remote.copy(uri, file, MAX_REMOTE_BYTES)
        except OSError as error:
            raise InvalidRequest(f"{shown(uri)} cannot be read: {error.strerror}", field="paths") from error
        except ImageTooManyBytes as error:
            raise InvalidRequest(f"{shown(uri)} is too long a list: {error}", field="paths") from error
    return copy


def _is_binary(kind: Any) -> bool:
    """Tell whether a Parquet column's type holds bytes anywhere."""
    import pyarrow.types  # noqa: PLC0415 - as above

    if pyarrow.types.is_nested(kind):
        return any(_is_binary(kind.field(index).type) for index in range(kind.num_fields))
    return any(is_kind(kind) for is_kind in (pyarrow.types.is_binary, pyarrow.types.is_large_binary)) or (
        pyarrow.types.is_fixed_size_binary(kind) or str(kind) == "binary_view"
    )


def _plain(value: object) -> object:
    """Return a value of Parquet as metadata has it: times as text, numbers that are none left out."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
