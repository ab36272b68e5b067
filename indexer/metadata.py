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
from pathlib import Path
from typing import TypeAlias

from indexer.errors import InvalidRequest
from indexer.files import path_of_uri, printable
from indexer.filters import moment_of

KEY = "path"  # the column that names the file
MAX_SIDECAR_BYTES = 1024 * 1024
MAX_VALUES = 1000  # of one picture, from one origin, counted with the elements of its lists
MAX_DEPTH = 16

Metadata: TypeAlias = Mapping[str, object]

# --- tables -----------------------------------------------------------------------------------------------------


def read_table(path: Path) -> dict[str, Metadata]:
    """Return a table's rows by their key as written: a URI, an absolute path, or one relative to the table's folder.

    CSV (.csv) has a header; a name may carry its type (`year:int`; string, int, float, bool, time), without one the
    column's values decide, all together. Empty cells are absent. JSON lines (.jsonl, .ndjson) hold an object a line.
    Both name the file by `path`. InvalidRequest, with the line, for a table that is not whole or names a file twice.
    """
    read = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows}.get(path.suffix.lower())
    if read is None:
        raise InvalidRequest(
            f"{path} is neither CSV nor JSON lines by its name: call it .csv, .jsonl or .ndjson", field="metadata"
        )
    found: dict[str, Metadata] = {}
    lines: dict[str, int] = {}  # by URI, so that two spellings of a file are noticed
    for line, key, values in read(path, _text_of(path)):
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


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", field="metadata") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidRequest(f"{path}, line {line}: not UTF-8: save the table as UTF-8", field="metadata") from error


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, object, Metadata]]:
    """Yield line number, key and values of each line."""
    for line, row in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand inside a string
        if row.strip():
            values = _json_object(row, f"{path}, line {line}")
            yield line, values.pop(KEY, None), values


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, str, Metadata]]:
    """Yield line number, key and values of each row."""
    numbered = _csv_cells(path, text)
    _, header = next(numbered, (0, []))
    names, kinds = _columns(path, header)
    rows = list(numbered)
    converts = [_CONVERTS[kind or _kind_of([cells[column] for _, cells in rows])] for column, kind in enumerate(kinds)]
    for line, cells in rows:
        values = {}
        for name, cell, convert in zip(names, cells, converts, strict=True):
            if name != KEY and cell.strip():
                try:
                    values[name] = convert(cell)
                except ValueError as error:
                    message = f"{path}, line {line}: {name} {cell!r} is {error}"
                    raise InvalidRequest(message, field="metadata") from error
        yield line, cells[names.index(KEY)], values


def _csv_cells(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the line that it begins on; InvalidRequest where one is longer or shorter than the first."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    width = 0
    line = 1
    try:
        for cells in reader:
            width = width or len(cells)
            if cells and len(cells) != width:
                raise InvalidRequest(
                    f"{path}, line {line}: {len(cells)} cells where the header has {width}", field="metadata"
                )
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InvalidRequest(f"{path}, line {line}: {error}: the table is torn or no CSV", field="metadata") from error


def _columns(path: Path, header: Sequence[str]) -> tuple[list[str], list[str | None]]:
    """Return the names of a CSV's columns, and the kinds of those that say theirs."""
    names: list[str] = []
    kinds: list[str | None] = []
    for number, written in enumerate(header, start=1):
        name, colon, kind = (part.strip() for part in written.rpartition(":"))
        if colon and kind not in _CONVERTS:
            raise InvalidRequest(
                f"{path}, line 1: {written!r} ends in no type: write one of {', '.join(_CONVERTS)}",
                field="metadata",
            )
        name = name if colon else kind
        if not name or name in names:
            why = f"the name {name!r} of another" if name else "no name"
            raise InvalidRequest(f"{path}, line 1: column {number} has {why}: give it its own", field="metadata")
        names.append(name)
        kinds.append("string" if name == KEY else kind if colon else None)
    if KEY not in names:
        raise InvalidRequest(f"{path}, line 1: no column is called {KEY!r}: it names the files", field="metadata")
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


def _kind_of(cells: Sequence[str]) -> str:
    """Return the narrowest kind that all cells of a column have; times are strings."""
    texts = [cell.strip() for cell in cells if cell.strip()]
    numbers = [_NUMBER.fullmatch(text) for text in texts]
    if texts and all(numbers):
        if all(_INTEGER.fullmatch(text) for text in texts):
            return "int" if all(abs(int(text)) <= _LARGEST for text in texts) else "string"
        return "float" if all(math.isfinite(float(text)) for text in texts) else "string"
    return "bool" if texts and all(text.lower() in ("true", "false") for text in texts) else "string"


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
    return checked(_json_object(content, name), name)
