"""What people know of a picture: tables keyed by path, and sidecar files.

A value is a string, a number, true or false, or a list or object of such; a time is a string, an RFC 3339 timestamp or
an ISO date. One without a zone counts as UTC.
"""

import csv
import io
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from indexer.errors import InvalidRequest
from indexer.files import path_of_uri, printable
from indexer.filters import moment_of

KEY = "path"  # the column that names the file
MAX_SIDECAR_BYTES = 1024 * 1024
MAX_VALUES = 1000  # of one picture, from one origin, counted with the elements of its lists
MAX_DEPTH = 16

Metadata: TypeAlias = Mapping[str, object]

# --- tables -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table to read, as often as `open` is called; `name` stands in the messages.

    `keys` are the columns that may name the file, the first that is there does.
    """

    name: str
    open: Callable[[], BinaryIO]
    keys: tuple[str, ...] = (KEY,)


Row: TypeAlias = tuple[int, object, Metadata]  # line, what names the file, values


def read_table(path: Path) -> dict[str, Metadata]:
    """Return a table's rows by their key as written: a URI, an absolute path, or one relative to the table's folder.

    CSV (.csv) has a header; a name may carry its type (`year:int`; string, int, float, bool, time), without one the
    column's values decide, all together. Empty cells are absent. JSON lines (.jsonl, .ndjson) hold an object a line.
    Both name the file by `path`. InvalidRequest, with the line, for a table that is not whole or names a file twice.
    """
    if path.suffix.lower() not in (".csv", ".jsonl", ".ndjson"):
        raise InvalidRequest(
            f"{path} is neither CSV nor JSON lines by its name: call it .csv, .jsonl or .ndjson", field="metadata"
        )
    found: dict[str, Metadata] = {}
    lines: dict[str, int] = {}  # by URI, so that two spellings of a file are noticed
    for line, key, values in rows(Table(str(path), lambda: path.open("rb")), path.suffix.lower()):
        where = f"{path}, line {line}"
        if not isinstance(key, str) or not key.strip() or not _is_text(key):
            raise InvalidRequest(f"{where}: names no file by {KEY!r}", field="metadata")
        try:
            uri = uri_of_key(key, path.parent)
        except ValueError as error:
            raise InvalidRequest(f"{where}: {key!r} is no URI ({error})", field="metadata") from error
        if uri in lines:
            raise InvalidRequest(f"{where}: {key!r} stands in line {lines[uri]} already", field="metadata")
        lines[uri] = line
        found[key] = checked(values, where)
    return found


def uri_of_key(key: str, folder: Path) -> str:
    """Return the URI of the file that a table in `folder` names; two spellings of a file have the same."""
    if key.startswith("file://"):
        key = str(path_of_uri(key))
    elif _URI.match(key):
        return key
    return Path(os.path.abspath(folder / key)).as_uri()


_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def rows(table: Table, suffix: str) -> Iterator[Row]:
    """Yield the rows of CSV (.csv) or JSON lines, never all in memory; InvalidRequest, with the line, as read_table."""
    try:
        yield from _csv_rows(table) if suffix == ".csv" else _json_rows(table)
    except OSError as error:
        raise InvalidRequest(f"{table.name} cannot be read: {error.strerror}", field="metadata") from error
    except UnicodeDecodeError as error:
        line = _line_that_is_not_utf8(table)
        raise InvalidRequest(
            f"{table.name}, line {line}: not UTF-8: save the table as UTF-8", field="metadata"
        ) from error


def _line_that_is_not_utf8(table: Table) -> int:
    with table.open() as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1  # written to meanwhile


@contextmanager
def _text_of(table: Table) -> Iterator[io.TextIOWrapper]:
    """Open a table as text, ends of lines as they are: they may stand inside of quotes."""
    with table.open() as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        yield text


def _json_rows(table: Table) -> Iterator[Row]:
    """Yield line number, key and values of each line."""
    with table.open() as file:
        for line, row in enumerate(file, start=1):  # by \n alone: U+2028 may stand inside a string
            text = row.decode("utf-8-sig" if line == 1 else "utf-8")
            if text.strip():
                values = _json_object(text, f"{table.name}, line {line}")
                key = next((name for name in table.keys if name in values), KEY)
                yield line, values.pop(key, None), values


def _csv_rows(table: Table) -> Iterator[Row]:
    """Yield line number, key and values of each row. The table is read twice: all cells of a column decide its kind."""
    names, kinds = _kinds_of(table)
    key = next(name for name in table.keys if name in names)
    converts = [_CONVERTS[kind] for kind in kinds]
    numbered = _csv_cells(table)
    next(numbered)
    for line, cells in numbered:
        values = {}
        for name, cell, convert in zip(names, cells, converts, strict=True):
            if name != key and cell.strip():
                try:
                    values[name] = convert(cell)
                except ValueError as error:
                    message = f"{table.name}, line {line}: {name} {cell!r} is {error}"
                    raise InvalidRequest(message, field="metadata") from error
        yield line, cells[names.index(key)], values


def _kinds_of(table: Table) -> tuple[list[str], list[str]]:
    """Return the names of a CSV's columns and their kinds, said or as their cells are."""
    numbered = _csv_cells(table)
    _, header = next(numbered, (0, []))
    names, said = _columns(table, header)
    seen = [_Cells() for _ in names]
    for _, cells in numbered:
        for column, cell in zip(seen, cells, strict=True):
            column.add(cell)
    return names, [kind or column.kind for kind, column in zip(said, seen, strict=True)]


def _csv_cells(table: Table) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the line that it begins on; InvalidRequest where one is longer or shorter than the first."""
    width = 0
    line = 1
    try:
        with _text_of(table) as text:
            reader = csv.reader(text, strict=True)
            for cells in reader:
                width = width or len(cells)
                if cells and len(cells) != width:
                    raise InvalidRequest(
                        f"{table.name}, line {line}: {len(cells)} cells where the header has {width}", field="metadata"
                    )
                if cells:
                    yield line, cells
                line = reader.line_num + 1
    except csv.Error as error:
        raise InvalidRequest(
            f"{table.name}, line {line}: {error}: the table is torn or no CSV", field="metadata"
        ) from error


def _columns(table: Table, header: Sequence[str]) -> tuple[list[str], list[str | None]]:
    """Return the names of a CSV's columns, and the kinds of those that say theirs."""
    names: list[str] = []
    kinds: list[str | None] = []
    for number, written in enumerate(header, start=1):
        name, colon, kind = (part.strip() for part in written.rpartition(":"))
        if colon and kind not in _CONVERTS:
            raise InvalidRequest(
                f"{table.name}, line 1: {written!r} ends in no type: write one of {', '.join(_CONVERTS)}",
                field="metadata",
            )
        name = name if colon else kind
        if not name or name in names:
            why = f"the name {name!r} of another" if name else "no name"
            raise InvalidRequest(f"{table.name}, line 1: column {number} has {why}: give it its own", field="metadata")
        names.append(name)
        kinds.append("string" if name in table.keys else kind if colon else None)
    if not set(names).intersection(table.keys):
        keys = " or ".join(map(repr, table.keys))
        raise InvalidRequest(f"{table.name}, line 1: no column is called {keys}: it names the files", field="metadata")
    return names, kinds


# --- types ------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")  # JSON's: 007 is a name, not a number
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # without Python's 1_000, nan and inf
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_LARGEST = 2**63 - 1


def _int(cell: str) -> int:
    text = cell.strip()
    if not _INTEGER.fullmatch(text) or abs(int(text)) > _LARGEST:
        raise ValueError("not an integer of 64 bits")
    return int(text)


def _float(cell: str) -> float:
    text = cell.strip()
    if not _FLOAT.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError("not a finite number")
    return float(text)


def _bool(cell: str) -> bool:
    try:
        return _BOOLEANS[cell.strip().lower()]
    except KeyError:
        raise ValueError("neither true nor false") from None


def _time(cell: str) -> str:
    text = cell.strip()
    if moment_of(text) is None:
        raise ValueError("neither an RFC 3339 timestamp nor a date like 2024-05-31")
    return text


_CONVERTS: dict[str, Callable[[str], object]] = {
    "string": str,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "time": _time,
}


class _Cells:
    """What all cells of a column are, which tells the narrowest kind that they have; times are strings."""

    def __init__(self) -> None:
        self._some = False
        self._numbers = self._integers = self._of_64_bits = self._finite = self._booleans = True

    def add(self, cell: str) -> None:
        """Take another cell into account; empty ones say nothing."""
        text = cell.strip()
        if not text:
            return
        self._some = True
        self._booleans = self._booleans and text.lower() in ("true", "false")
        self._numbers = self._numbers and bool(_NUMBER.fullmatch(text))
        if self._numbers:
            self._integers = self._integers and bool(_INTEGER.fullmatch(text))
            self._of_64_bits = self._of_64_bits and self._integers and abs(int(text)) <= _LARGEST
            self._finite = self._finite and math.isfinite(float(text))

    @property
    def kind(self) -> str:
        """The kind."""
        if self._some and self._numbers:
            if self._integers:
                return "int" if self._of_64_bits else "string"
            return "float" if self._finite else "string"
        return "bool" if self._some and self._booleans else "string"


def checked(values: Metadata, where: str) -> dict[str, object]:
    """Return the values without those that are null; InvalidRequest where one cannot be kept. `where` begins it."""
    kept = {name: value for name, value in values.items() if value is not None}
    count = sum(1 for _ in _leaves(kept, where, MAX_DEPTH))
    if count > MAX_VALUES:
        raise InvalidRequest(f"{where}: {count} values, the limit is {MAX_VALUES}", field="metadata")
    return kept


def _leaves(value: object, where: str, depth: int) -> Iterator[object]:
    """Yield every value of lists and objects; InvalidRequest for one that neither JSON nor a database can hold."""
    if depth < 0:
        raise InvalidRequest(f"{where}: nested more than {MAX_DEPTH} deep", field="metadata")
    if isinstance(value, dict):
        for name, item in value.items():
            if not name.strip() or not _is_text(name):
                raise InvalidRequest(f"{where}: {name!r} is no name", field="metadata")
            yield from _leaves(item, f"{where}: {name}", depth - 1)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, where, depth - 1)
    else:
        too_large = isinstance(value, int) and abs(value) > _LARGEST
        if too_large or (isinstance(value, float) and not math.isfinite(value)):
            raise InvalidRequest(f"{where}: a number is not finite or beyond 64 bits", field="metadata")
        if isinstance(value, str) and not _is_text(value):
            raise InvalidRequest(f"{where}: a text holds a NUL or half a character", field="metadata")
        yield value


def _is_text(text: str) -> bool:
    """Tell whether a text can be stored: PostgreSQL knows no NUL, UTF-8 no lone surrogate."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _json_object(text: str | bytes, where: str) -> dict[str, object]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where}: not JSON ({error})", field="metadata") from error
    if not isinstance(values, dict):
        raise InvalidRequest(f"{where}: not a JSON object", field="metadata")
    return values


# --- sidecars ---------------------------------------------------------------------------------------------------

SIDECAR_SUFFIX = ".json"


def sidecar_of(path: Path) -> Path:
    """Return where a picture's sidecar lies: `photo.jpg.json` beside `photo.jpg`."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def read_sidecar(path: Path) -> dict[str, object]:
    """Return the values of a sidecar, one JSON object; InvalidRequest when it is torn, too large or unreadable."""
    name = printable(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise InvalidRequest(f"{name}: not a regular file", field="metadata")
        if status.st_size > MAX_SIDECAR_BYTES:
            message = f"{name}: {status.st_size:,} bytes, the limit of a sidecar is {MAX_SIDECAR_BYTES:,}"
            raise InvalidRequest(message, field="metadata")
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{name}: cannot be read: {error.strerror}", field="metadata") from error
    return sidecar_values(content, name)


def sidecar_values(content: bytes, name: str) -> dict[str, object]:
    """Return the values of a sidecar's bytes; InvalidRequest, which `name` begins, when it is torn."""
    return checked(_json_object(content, name), name)
