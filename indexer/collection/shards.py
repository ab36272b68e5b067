"""Shards: append-only files of descriptions, written once (safetensors, read memory-mapped, one image at a time)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from indexer.describe import Description
from indexer.errors import CollectionCorrupt
from indexer.factorize import QuantizedFactors
from indexer.files import write_durably

_POOLED = "pooled/"


def write_shard(path: Path, descriptions: Sequence[Description]) -> None:
    """Write descriptions of one recipe, in order, never half.

    Arrays that differ in length from image to image (heatmaps, R-MAC's rows) lie end to end; offsets [N + 1] part them.
    """
    factors = [description.factors for description in descriptions]
    arrays = {
        "grid": np.array([(entry.height, entry.width) for entry in factors], dtype=np.int32),
        "where": np.concatenate([entry.where for entry in factors]),
        "where_scale": np.stack([entry.where_scale for entry in factors]),
        "what": np.stack([entry.what for entry in factors]),
        "what_scale": np.stack([entry.what_scale for entry in factors]),
    }
    for name in descriptions[0].pooled:
        rows = [description.pooled[name] for description in descriptions]
        arrays[f"{_POOLED}{name}"] = np.concatenate(rows)
        arrays[f"{_POOLED}{name}/offsets"] = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    write_durably(path, lambda temporary: save_file(arrays, temporary))


def read_descriptions(path: Path, rows: Sequence[int]) -> Iterator[Description]:
    """Yield the descriptions at `rows` of a shard; CollectionCorrupt when the file is absent or torn."""
    try:
        with safe_open(path, framework="numpy") as file:
            grids = file.get_tensor("grid")
            ends = np.cumsum(grids.prod(axis=1), dtype=np.int64)
            pooled = [name for name in file.keys() if name.startswith(_POOLED) and not name.endswith("/offsets")]  # noqa: SIM118 - safe_open is no mapping
            offsets = {name: file.get_tensor(f"{name}/offsets") for name in pooled}
            where, what = file.get_slice("where"), file.get_slice("what")
            where_scale, what_scale = file.get_tensor("where_scale"), file.get_tensor("what_scale")
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
                    {
                        name.removeprefix(_POOLED): file.get_slice(name)[int(bounds[row]) : int(bounds[row + 1])]
                        for name, bounds in offsets.items()
                    },
                )
    except (SafetensorError, OSError, IndexError, ValueError) as error:
        raise CollectionCorrupt(f"shard {path.name} is missing or torn ({error}): restore it from a backup") from error
