"""Read metadata tables keyed by path: CSV and JSON lines."""

import codecs
import csv
import io
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeAlias

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.metadata.values import CONVERTS, CellKinds, Metadata, checked, is_text, json_object
from whatwhere.indexer.storage.bounded import bounded_lines, open_bounded
from whatwhere.indexer.storage.files import path_of_uri

KEY = "path"  # the column with the file's path or URI
DELIMITERS = (",", ";", "\t")
MAX_TABLE_BYTES = 4 * 1024**3  # its rows are kept in memory
_ANNOUNCED = re.compile(r'"?sep=([^\r\n"])"?[\r\n]*', re.IGNORECASE)  # Excel's first line


@dataclass(frozen=True)
class Table:
    """A table that `open` opens, several times if needed; `name` appears in error messages.

    `keys` are the possible key columns; the first present one names the file.
    """

    name: str
    open: Callable[[], BinaryIO]
    keys: tuple[str, ...] = (KEY,)


Row: TypeAlias = tuple[int, object, Metadata]  # line number, key, values


def read_table(path: Path) -> dict[str, Metadata]:
    """Read a table into a mapping from its keys, as written, to metadata values.

    The key column `path` has a URI, an absolute path, or a path relative to the table's folder. CSV (.csv) has a
    header. A column name may declare a type (`year:int`; string, int, float, bool, time), else the type is inferred
    from all cells. Empty cells are absent. JSON lines (.jsonl, .ndjson) have one object per line.
    Raises InvalidRequest, with the line, if the table is malformed or names a file twice.
    """
    if path.suffix.lower() not in (".csv", ".jsonl", ".ndjson"):
        raise InvalidRequest(
            f"{path}: unknown table format: the file extension must be .csv, .jsonl or .ndjson", field="metadata"
        )
    found: dict[str, Metadata] = {}
    lines: dict[str, int] = {}  # by URI, to detect two spellings of the same file
    for line, key, values in rows(Table(str(path), lambda: open_bounded(path, MAX_TABLE_BYTES)), path.suffix.lower()):
        where = f"{path}, line {line}"
        if not isinstance(key, str) or not key.strip() or not is_text(key):
            raise InvalidRequest(f"{where}: {KEY!r} is missing, empty or not text", field="metadata")
        uri = uri_of_key(key, path.parent)
        if uri in lines:
            raise InvalidRequest(f"{where}: {key!r} is already in line {lines[uri]}", field="metadata")
        lines[uri] = line
        found[key] = checked(values, where)
    return found


def uri_of_key(key: str, folder: Path) -> str:
    """Return the canonical URI of a table's key, with paths relative to `folder`."""
    if key.startswith("file://"):
        key = str(path_of_uri(key))
    elif _URI.match(key):
        return key
    return Path(os.path.abspath(folder / key)).as_uri()


_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def rows(table: Table, suffix: str) -> Iterator[Row]:
    """Stream the rows of a CSV table (suffix .csv) or of JSON lines.

    Raises InvalidRequest, with the line, if the table cannot be read or is malformed.
    """
    try:
        yield from _csv_rows(table) if suffix == ".csv" else _json_rows(table)
    except OSError as error:
        raise InvalidRequest(f"{table.name} cannot be read: {error.strerror}", field="metadata") from error
    except UnicodeDecodeError as error:
        line = _line_that_cannot_be_decoded(table)
        encoding = "UTF-16" if error.encoding.startswith("utf-16") else "UTF-8"
        raise InvalidRequest(
            f"{table.name}, line {line}: not {encoding}: save the table as UTF-8", field="metadata"
        ) from error


def _line_that_cannot_be_decoded(table: Table) -> int:
    with table.open() as file, io.TextIOWrapper(file, _encoding_of(file), errors="replace", newline="\n") as text:
        for number, line in enumerate(bounded_lines(text), start=1):
            if "\ufffd" in line:
                return number
    return 1  # the file has changed since


def _encoding_of(file: BinaryIO) -> str:
    """Return the encoding that a byte order mark announces, UTF-8 without one; the file is at its start again."""
    start = file.read(2)
    file.seek(0)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


@contextmanager
def _text_of(table: Table) -> Iterator[io.TextIOWrapper]:
    """Open a table as text, with line ends unchanged: they may be inside quotes."""
    with table.open() as file, io.TextIOWrapper(file, encoding=_encoding_of(file), newline="") as text:
        yield text


def _json_rows(table: Table) -> Iterator[Row]:
    """Yield line number, key and values of each line."""
    with table.open() as file:
        for line, row in enumerate(bounded_lines(file), start=1):  # split at \n only: a string may contain U+2028
            text = row.decode("utf-8-sig" if line == 1 else "utf-8")
            if text.strip():
                values = json_object(text, f"{table.name}, line {line}")
                key = next((name for name in table.keys if name in values), KEY)
                yield line, values.pop(key, None), values


def _csv_rows(table: Table) -> Iterator[Row]:
    """Yield line number, key and values of each row; a first pass infers the column types from all cells."""
    names, kinds = _kinds_of(table)
    key = next(name for name in table.keys if name in names)
    converts = [CONVERTS[kind] for kind in kinds]
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
    """Return the names of a CSV's columns and their types, declared or inferred from the cells."""
    numbered = _csv_cells(table)
    _, header = next(numbered, (0, []))
    names, declared = _columns(table, header)
    seen = [CellKinds() for _ in names]
    for _, cells in numbered:
        for column, cell in zip(seen, cells, strict=True):
            column.add(cell)
    return names, [kind or column.kind for kind, column in zip(declared, seen, strict=True)]


def _csv_cells(table: Table) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the line it begins on; raise InvalidRequest if its length differs from the header's."""
    width = 0
    line = 1
    try:
        with _text_of(table) as text:
            lines = bounded_lines(text)
            first = next(lines, "")
            announced = _announced_delimiter(first)
            if announced is not None:
                line, first = 2, next(lines, "")
            # A header with a line end inside quotes has its delimiter before it: the key column comes early.
            delimiter = announced or _delimiter_of(first, table.keys)
            reader = csv.reader(chain([first], lines) if first else lines, delimiter=delimiter, strict=True)
            before = line - 1
            for cells in reader:
                width = width or len(cells)
                if cells and len(cells) != width:
                    raise InvalidRequest(
                        f"{table.name}, line {line}: {len(cells)} cells, but the header has {width}", field="metadata"
                    )
                if cells:
                    yield line, cells
                line = before + reader.line_num + 1
    except csv.Error as error:
        raise InvalidRequest(
            f"{table.name}, line {line}: {error}: the table is truncated or not CSV", field="metadata"
        ) from error


def _announced_delimiter(line: str) -> str | None:
    """Return the delimiter of Excel's line `sep=;`, None if the line is another one."""
    match = _ANNOUNCED.fullmatch(line)
    return None if match is None else match[1]


def _delimiter_of(header: str, keys: Collection[str]) -> str:
    """Return the first of comma, semicolon and tab with which the header has a key column; a comma if none has."""
    for delimiter in DELIMITERS:
        with suppress(csv.Error, StopIteration):
            cells = next(csv.reader([header], delimiter=delimiter))
            if any(_name_and_kind(cell)[0] in keys for cell in cells):
                return delimiter
    return DELIMITERS[0]


def _name_and_kind(written: str) -> tuple[str, str | None]:
    """Split the name of a column from the type that it declares; the type is None if it declares none."""
    name, colon, kind = (part.strip() for part in written.rpartition(":"))
    return (name, kind) if colon and kind in CONVERTS else (written.strip(), None)


def _columns(table: Table, header: Sequence[str]) -> tuple[list[str], list[str | None]]:
    """Return the names of a CSV's columns and their declared types, None if not declared."""
    names: list[str] = []
    kinds: list[str | None] = []
    for number, written in enumerate(header, start=1):
        name, colon, kind = (part.strip() for part in written.rpartition(":"))
        if colon and kind not in CONVERTS:
            raise InvalidRequest(
                f"{table.name}, line 1: {written!r} has an unknown type: use one of {', '.join(CONVERTS)}",
                field="metadata",
            )
        name = name if colon else kind
        if not name or name in names:
            why = f"repeats the name {name!r}" if name else "has no name"
            raise InvalidRequest(f"{table.name}, line 1: column {number} {why}: use unique names", field="metadata")
        names.append(name)
        kinds.append("string" if name in table.keys else kind if colon else None)
    if not set(names).intersection(table.keys):
        keys = " or ".join(map(repr, table.keys))
        raise InvalidRequest(
            f"{table.name}, line 1: the key column {keys} is missing from {','.join(header)[:100]!r}, split at commas, "
            "semicolons or tabs: name the column that has the files",
            field="metadata",
        )
    return names, kinds
