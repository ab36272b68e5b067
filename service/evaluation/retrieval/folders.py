"""Read a user's data set: the class of a picture is its folder, or is given in a CSV file."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.benchmark import (
    Benchmark,
    BenchmarkQuery,
    Judgment,
    Pictures,
    Protocol,
    assemble,
)
from whatwhere.service.evaluation.retrieval.sources import find_pictures, read_text

READING = "same class"
_METRICS = ("AP@30", "mAP")
_USES = ("query", "database", "both")
_REQUIRED, _OPTIONAL = ["name", "class"], ["use"]


@dataclass(frozen=True)
class _Entry:
    kind: str
    is_query: bool = True
    is_searched: bool = True


def read_folders(images: Sequence[Path], ground_truth: Path | None) -> Benchmark:
    """Read pictures whose class is their folder, or is given in the CSV file `ground_truth`.

    A picture's name is its path below its image folder. The CSV has the header `name,class`, and an optional column
    `use`: `query`, `database` or `both`. Pictures that the CSV does not list are not searched. Each query searches for
    the other pictures of its class; the query's own picture is junk. Raises BenchmarkUnreadable if the CSV is invalid,
    or if a picture has no class.
    """
    found = _by_name(find_pictures(images))
    entries = (
        _read_csv(ground_truth) if ground_truth else {name: _Entry(_folder_of(found[name], name)) for name in found}
    )
    searched = {name: found[name] for name, entry in entries.items() if entry.is_searched and name in found}
    asking = {name: found[name] for name, entry in entries.items() if entry.is_query and name in found}
    members: dict[str, set[str]] = {}
    for name in searched:
        members.setdefault(entries[name].kind, set()).add(name)
    queries = [_query(name, entry.kind, members) for name, entry in entries.items() if entry.is_query]
    return assemble(_protocol(entries, is_complete=ground_truth is None), Pictures(searched, asking), queries)


def _query(name: str, kind: str, members: Mapping[str, set[str]]) -> BenchmarkQuery:
    own = frozenset({name})
    judgment = Judgment(frozenset(members.get(kind, ())) - own, own)
    return BenchmarkQuery(name, name, kind, None, {READING: judgment})


def _protocol(entries: Mapping[str, _Entry], *, is_complete: bool) -> Protocol:
    """Return the protocol; with a CSV, its rows are the complete set."""
    if is_complete:
        return Protocol("folders", (READING,), _METRICS)
    counts = sum(entry.is_searched for entry in entries.values()), sum(entry.is_query for entry in entries.values())
    return Protocol("folders", (READING,), _METRICS, *counts)


def _by_name(pictures: Mapping[Path, str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path, name in pictures.items():
        if found.setdefault(name, path) != path:
            raise BenchmarkUnreadable(
                f"{path} and {found[name]} are both {name} below their folders: give their common parent folder"
            )
    return found


def _folder_of(path: Path, name: str) -> str:
    if "/" not in name:
        raise BenchmarkUnreadable(f"{path} has no class: put it into a folder of its class, or give a CSV file")
    return PurePosixPath(name).parent.name


def _read_csv(path: Path) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    # newline="": the csv module must see line ends, because a quoted name may contain one
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = next(rows, [])
        if header not in (_REQUIRED, _REQUIRED + _OPTIONAL):
            raise BenchmarkUnreadable(f"{path}, line 1: the header is {','.join(header)!r}; write name,class[,use]")
        for row in rows:
            if row:
                name, entry = _entry(row, len(header), f"{path}, line {rows.line_num}")
                if name in entries:
                    raise BenchmarkUnreadable(f"{path}, line {rows.line_num}: {name!r} is listed twice; remove one row")
                entries[name] = entry
    except csv.Error as error:
        raise BenchmarkUnreadable(f"{path}, line {rows.line_num}: {error}; quote names with quotes") from error
    return entries


def _entry(row: list[str], width: int, where: str) -> tuple[str, _Entry]:
    if len(row) != width:
        raise BenchmarkUnreadable(f"{where}: {len(row)} columns, the header has {width}; quote names with commas")
    name, kind, use = (*row, "both")[:3]
    if not name or not kind:
        raise BenchmarkUnreadable(f"{where}: the {'class' if name else 'name'} is empty; fill it in")
    use = use or "both"
    if use not in _USES:
        raise BenchmarkUnreadable(f"{where}: the use {use!r} is not one of {', '.join(_USES)}")
    return name, _Entry(kind, is_query=use != "database", is_searched=use != "query")
