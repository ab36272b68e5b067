"""What a collection costs: to make, to add one percent to, on disk, in memory.

`python -m tests.measure_collection [--entries 20000] [--folder DIR]`; nothing is downloaded. The entries are default
descriptions of photographs that installed packages carry, each with noise of its own: as many bytes as real ones.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from indexer.backbones import DEFAULT_BACKBONE, load_backbone
from indexer.catalog import NewImage, Outcome, Source
from indexer.collection import CollectionWriter, Layout, Recipe, find_whiteners, open_for_writing, publish
from indexer.describe import Describer, Description
from indexer.images import SHORTER_SIDE, decode_image
from indexer.methods import DEFAULT_DESCRIPTORS, DEFAULT_PRESET, find_method, pooled_by
from indexer.pipeline import DEFAULT_RANK, SHARD_SOURCES
from tests.conftest import INDEXED_PHOTOGRAPHS

SEARCHES = 200
# In a process of its own: what a server holds of a generation, without the network's weights.
SERVE = f"""
import json, statistics, sys, time
from pathlib import Path
from indexer.collection import open_collection
def resident(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))
before = resident("RssAnon:")
with open_collection(Path(sys.argv[1])) as reader:
    times = []
    for image_id in reader.ids[:: max(1, len(reader.ids) // {SEARCHES})].tolist():
        for index in reader.indexes.values():
            started = time.perf_counter()
            index.vectors.search(index.vectors.vector(image_id), 10)
            times.append(time.perf_counter() - started)
    print(json.dumps([resident("RssAnon:") - before, resident("RssFile:"), 1000 * statistics.median(times)]))
"""


@dataclass(frozen=True)
class Cost:
    """Seconds, bytes handed to the disk, and the peak of resident memory above that of the start."""

    seconds: float
    written: int


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where the collection is made; a temporary folder otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure(Path(folder) / "c.ww", arguments.entries)


def measure(root: Path, entries: int) -> None:
    """Make a collection of so many entries, add a hundredth, and print what each cost."""
    describer = Describer(load_backbone(DEFAULT_BACKBONE, torch.device("cpu")), DEFAULT_RANK, _pooled())
    pictures = [decode_image(path.read_bytes(), path.name).pixels for path in INDEXED_PHOTOGRAPHS]
    originals = describer.describe(pictures)
    recipe = _recipe(describer)
    memory = _resident()
    with open_for_writing(root, recipe) as writer:
        made = _cost(writer, originals, 0, entries)
        grown = _resident() - memory
        added = _cost(writer, originals, entries, entries // 100)
    layout = Layout(root)
    on_disk = {
        "shards": _bytes(layout.shards),
        "vectors": _bytes(layout.segments),
        "catalogue": layout.catalog.stat().st_size,
    }
    total = entries + entries // 100
    print(f"{entries:,} entries: {made.seconds:.0f} s, {made.written / 1e6:,.0f} MB written")
    print(
        f"1 % more: {added.seconds:.2f} s ({added.seconds / made.seconds:.2%}), "
        f"{added.written / 1e6:.1f} MB written ({added.written / made.written:.2%})"
    )
    print("bytes an image: " + ", ".join(f"{name} {size / total:,.0f}" for name, size in on_disk.items()))
    print(f"indexer: {grown / 1e6:,.0f} MB resident more after {entries:,} entries")
    served = subprocess.run([sys.executable, "-c", SERVE, str(root)], capture_output=True, check=True, text=True)
    anonymous, mapped, search_ms = json.loads(served.stdout)
    print(
        f"reader: {anonymous / 1e6:,.0f} MB of its own and {mapped / 1e6:,.0f} MB of mapped files, libraries included; "
        f"a search {search_ms:.1f} ms"
    )
    vectors = on_disk["vectors"]
    print(f"for a million images: {anonymous / total:,.0f} MB of its own, {vectors / total:,.0f} MB of mapped vectors")


def _pooled() -> tuple[str, ...]:
    return pooled_by(find_method(name) for name in DEFAULT_DESCRIPTORS)


def _recipe(describer: Describer) -> Recipe:
    spec = describer.backbone.spec
    return Recipe(
        spec.name,
        spec.layer,
        describer.backbone.weights_sha256,
        DEFAULT_RANK,
        SHORTER_SIDE,
        precision=describer.backbone.precision,
        pooled=_pooled(),
        descriptors=DEFAULT_DESCRIPTORS,
        preset=DEFAULT_PRESET,
    )


def _cost(writer: CollectionWriter, originals: list[Description], first: int, count: int) -> Cost:
    """Append so many entries and publish."""
    whiteners = find_whiteners(writer.layout, writer.recipe)
    started, before = time.perf_counter(), _written()
    for start in range(first, first + count, SHARD_SOURCES):
        numbers = range(start, min(start + SHARD_SOURCES, first + count))
        outcomes = [_outcome(number, row) for row, number in enumerate(numbers)]
        writer.append(outcomes, [*_perturbed(originals, numbers)])
    publish(writer.layout, writer.catalog, writer.recipe, whiteners)
    return Cost(time.perf_counter() - started, _written() - before)


def _outcome(number: int, row: int) -> Outcome:
    source = Source(f"file:///photographs/{number // 1000:04}/{number:08}.jpg", 100_000, number)
    return Outcome(source, NewImage(f"{number:064x}", 100_000, 683, 512, "image/jpeg", row))


def _perturbed(originals: list[Description], numbers: range) -> Iterator[Description]:
    for number in numbers:
        original = originals[number % len(originals)]
        noise = np.random.default_rng(number).integers(0, 64, original.factors.what.shape, dtype=np.uint8)
        what = np.maximum(original.factors.what, noise)
        yield replace(original, factors=replace(original.factors, what=what))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _written() -> int:
    """Return how many bytes this process has handed to the system to write."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
