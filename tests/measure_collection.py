"""Measure a collection's cost: time to create it and to add one percent, size on disk and in memory.

`python -m tests.measure_collection [--entries 20000] [--folder DIR]`; nothing is downloaded. The entries are default
descriptions of photographs from installed packages, each with different noise, and have as many bytes as real ones.
`--memory 1000 10000` measures only the peak memory of `index` in collections of these sizes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tests.conftest import INDEXED_PHOTOGRAPHS
from whatwhere.indexer.backbones.backbone import load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE
from whatwhere.indexer.catalog.records import NewImage, Outcome, Source
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import CollectionWriter, open_for_writing
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.descriptors import find_descriptor
from whatwhere.indexer.features.names import DEFAULT_DESCRIPTORS, DEFAULT_PRESET, DEFAULT_RANK, pooled_by
from whatwhere.indexer.images.decode import SHORTER_SIDE, decode_image
from whatwhere.indexer.pipeline.run import SHARD_SOURCES

SEARCHES = 200
# In a process of its own: what a server holds of a generation, without the network's weights.
SERVE = f"""
import json, statistics, sys, time
from pathlib import Path
from whatwhere.indexer.collection.reader import open_collection
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
# In a process of its own, so that the peaks are those of one run: all resident memory, and what no file is behind.
MEASURED_RUN = """
import json, sys, threading
from pathlib import Path
from whatwhere.indexer.pipeline.run import index_paths
from tests.generations import publish_collection
def kilobytes(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind))
anonymous, ended = [0], threading.Event()
def watch():
    while not ended.wait(0.01):
        anonymous.append(kilobytes("RssAnon:"))
watching = threading.Thread(target=watch)
watching.start()
root, *names = map(Path, sys.argv[1:])
try:
    images = index_paths(names, root).images if names else publish_collection(root).image_count
finally:
    ended.set()
    watching.join()
print(json.dumps([images, 1024 * kilobytes("VmHWM:"), 1024 * max(anonymous)]))
"""


@dataclass(frozen=True)
class Cost:
    """Hold the seconds, and the bytes written to disk."""

    seconds: float
    written: int


@dataclass(frozen=True)
class Peak:
    """Hold the peak memory of a run in bytes: total, and without pages of mapped files."""

    images: int
    resident: int
    anonymous: int


def main() -> None:
    """Print the requested measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="folder of the collection; default: a temporary one")
    parser.add_argument("--memory", type=int, nargs="+", metavar="ENTRIES", help="measure only the memory of indexing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.memory:
            measure_memory(Path(folder), arguments.memory)
        else:
            measure(Path(folder) / "c.ww", arguments.entries)


def measure(root: Path, entries: int) -> None:
    """Create a collection, add one percent, and print the cost of each."""
    recipe, originals = _described()
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
    print("bytes per image: " + ", ".join(f"{name} {size / total:,.0f}" for name, size in on_disk.items()))
    print(f"indexer: {grown / 1e6:,.0f} MB resident more after {entries:,} entries")
    served = subprocess.run([sys.executable, "-c", SERVE, str(root)], capture_output=True, check=True, text=True)
    anonymous, mapped, search_ms = json.loads(served.stdout)
    print(
        f"reader: {anonymous / 1e6:,.0f} MB of its own and {mapped / 1e6:,.0f} MB of mapped files, libraries included; "
        f"a search {search_ms:.1f} ms"
    )
    vectors = on_disk["vectors"]
    print(f"for a million images: {anonymous / total:,.0f} MB of its own, {vectors / total:,.0f} MB of mapped vectors")


def measure_memory(folder: Path, sizes: Sequence[int]) -> None:
    """Print the peak memory of a run in collections of these sizes, and the ratio of the last to the first.

    First new pictures are indexed, where no vector was derived before. Then, with half as many entries again and more,
    a generation is published without a network, whose own peak hides others: it takes vectors over and derives some.
    """
    recipe, originals = _described()
    peaks: dict[str, list[Peak]] = {"index": [], "publish": []}
    for entries in sizes:
        root = folder / f"{entries}.ww"
        runs = zip(peaks.items(), (0, entries), (entries, entries * 3 // 5), (INDEXED_PHOTOGRAPHS, ()), strict=True)
        for (run, found), first, count, pictures in runs:
            with open_for_writing(root, recipe) as writer:
                _append(writer, originals, first, count)
            found.append(_peak(root, pictures))
            print(
                f"{run}, {found[-1].images:,} images: {found[-1].resident / 1e6:,.1f} MB resident at most, "
                f"{found[-1].anonymous / 1e6:,.1f} MB without mapped files",
                flush=True,
            )
    for run, found in peaks.items():
        resident, anonymous = found[-1].resident / found[0].resident, found[-1].anonymous / found[0].anonymous
        print(
            f"{run}, {sizes[-1]:,} entries against {sizes[0]:,}: {resident:.3f} times as much resident, "
            f"{anonymous:.3f} without mapped files"
        )


def _peak(root: Path, pictures: Sequence[Path]) -> Peak:
    """Index pictures in a separate process, or only publish if there are none."""
    command = [sys.executable, "-c", MEASURED_RUN, str(root), *map(str, pictures)]
    run = subprocess.run(command, capture_output=True, check=True, text=True)
    return Peak(*json.loads(run.stdout))


def _described() -> tuple[Recipe, list[Description]]:
    """Return the default recipe, and the photographs' descriptions."""
    describer = Describer(load_backbone(DEFAULT_BACKBONE, torch.device("cpu")), DEFAULT_RANK, _pooled())
    pictures = [decode_image(path.read_bytes(), path.name).pixels for path in INDEXED_PHOTOGRAPHS]
    return _recipe(describer), describer.describe(pictures)


def _pooled() -> tuple[str, ...]:
    return pooled_by(find_descriptor(name) for name in DEFAULT_DESCRIPTORS)


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
    """Append `count` entries and publish."""
    whiteners = find_whiteners(writer.layout, writer.recipe)
    started, before = time.perf_counter(), _written()
    _append(writer, originals, first, count)
    publish(writer.layout, writer.catalog, writer.recipe, whiteners)
    return Cost(time.perf_counter() - started, _written() - before)


def _append(writer: CollectionWriter, originals: list[Description], first: int, count: int) -> None:
    for start in range(first, first + count, SHARD_SOURCES):
        numbers = range(start, min(start + SHARD_SOURCES, first + count))
        outcomes = [_outcome(number, row) for row, number in enumerate(numbers)]
        writer.append(outcomes, [*_perturbed(originals, numbers)])


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
    """Return the number of bytes that this process has written."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
