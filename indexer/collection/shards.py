"""Shards: files of descriptions (safetensors), written once, memory-mapped and read image by image."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.errors import CollectionCorrupt
from whatwhere.indexer.features.description import Description, QuantizedFactors
from whatwhere.indexer.storage.files import system_error, write_durably

_POOLED = "pooled/"
_CHECKSUMS = "crc32"
_COLLECTION = "collection"  # in the header of the file


def write_shard(path: Path, descriptions: Sequence[Description], collection_id: str = "") -> None:
    """Write the descriptions of one recipe, in order and atomically, with the id of their collection.

    Arrays whose length varies by image (heatmaps, the rows of R-MAC) are concatenated, with offsets [N + 1]. A CRC-32
    for each image lets a reader verify it alone.
    """
    factors = [description.factors for description in descriptions]
    arrays = {
        "grid": np.array([(entry.height, entry.width) for entry in factors], dtype=np.int32),
        "where": np.concatenate([entry.where for entry in factors]),
        "where_scale": np.stack([entry.where_scale for entry in factors]),
        "what": np.stack([entry.what for entry in factors]),
        "what_scale": np.stack([entry.what_scale for entry in factors]),
        _CHECKSUMS: np.array([checksum(description) for description in descriptions], dtype=np.uint32),
    }
    for name in descriptions[0].pooled:
        rows = [description.pooled[name] for description in descriptions]
        arrays[f"{_POOLED}{name}"] = np.concatenate(rows)
        arrays[f"{_POOLED}{name}/offsets"] = np.cumsum([0, *map(len, rows)], dtype=np.int64)

    def write(temporary: Path) -> None:
        try:
            save_file(arrays, temporary, {_COLLECTION: collection_id} if collection_id else None)
        except SafetensorError as error:  # also raised for a full disk
            raise system_error(str(error), path) from error

    write_durably(path, write)


def checksum(description: Description) -> int:
    """Return the CRC-32 of all stored values of an image."""
    factors = description.factors
    arrays = {name: getattr(factors, name) for name in ("where", "where_scale", "what", "what_scale")}
    arrays |= dict(sorted(description.pooled.items()))
    crc = zlib.crc32(f"{factors.height} {factors.width}".encode())
    for name, array in arrays.items():
        crc = zlib.crc32(f"{name} {array.dtype}".encode(), crc)  # a changed header must not reinterpret the same bytes
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return crc


def collection_of(path: Path) -> str:
    """Return the id of the collection that a shard belongs to, empty for one of an older version or a damaged one."""
    try:
        with safe_open(path, framework="numpy") as file:
            return _collection_of(file)
    except (SafetensorError, OSError):
        return ""


def _collection_of(file: Any) -> str:
    return str((file.metadata() or {}).get(_COLLECTION, ""))


def read_descriptions(path: Path, rows: Sequence[int], identity: Identity | None = None) -> Iterator[Description]:
    """Yield the descriptions at `rows` of a shard.

    Raises CollectionCorrupt if it is missing, truncated or changed, or is of another collection than `identity`.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            if identity is not None and not identity.owns(found := _collection_of(file)):
                raise CollectionCorrupt(
                    f"shard {path.name} belongs to another collection ({found}): run `whatwhere verify --repair`"
                )
            names = set(file.keys())
            checksums = file.get_tensor(_CHECKSUMS) if _CHECKSUMS in names else None  # collections of format 1
            for row, description in zip(rows, _descriptions(file, sorted(names), rows), strict=True):
                if checksums is not None:
                    _compare(row, int(checksums[row]), description)
                yield description
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise CollectionCorrupt(
            f"shard {path.name} is missing or damaged ({error}): run `whatwhere verify --repair`"
        ) from error


def _compare(row: int, expected: int, description: Description) -> None:
    if checksum(description) != expected:
        raise ValueError(f"row {row} does not match its checksum")


def _descriptions(file: Any, names: Sequence[str], rows: Sequence[int]) -> Iterator[Description]:
    grids = file.get_tensor("grid")
    ends = np.cumsum(grids.prod(axis=1), dtype=np.int64)
    pooled = [name for name in names if name.startswith(_POOLED) and not name.endswith("/offsets")]
    offsets = {name: file.get_tensor(f"{name}/offsets") for name in pooled}
    where_scale, what_scale = file.get_tensor("where_scale"), file.get_tensor("what_scale")
    where, what = file.get_slice("where"), file.get_slice("what")
    for row in rows:
        height, width = map(int, grids[row])
        end = int(ends[row])
        factors = QuantizedFactors(
            where=where[end - height * width : end],
            where_scale=where_scale[row],
            what=what[row : row + 1][0],
            what_scale=what_scale[row],
            height=height,
            width=width,
        )
        yield Description(
            factors,
            {name.removeprefix(_POOLED): _between(file, name, offsets[name], row) for name in pooled},
        )


def _between(file: Any, name: str, offsets: NDArray[np.int64], row: int) -> NDArray[np.uint8]:
    return np.asarray(file.get_slice(name)[int(offsets[row]) : int(offsets[row + 1])])
