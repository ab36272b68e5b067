"""Measure cost and recall of vector indexes: `python -m tests.measure_index [--sizes 10000,100000] [--factories A;B]`.

The vectors are *fused* descriptors of real photographs (from WHATWHERE_DATA, else from installed packages), resampled
and perturbed. The queries are descriptors of regions, perturbed less. The search uses one thread.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.conftest import DATA, INDEXED_PHOTOGRAPHS
from whatwhere.indexer.boxes import Box
from whatwhere.indexer.collection.reader import CollectionReader, open_collection
from whatwhere.indexer.features.descriptors import find_descriptor
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.vectors.factories import factory_for
from whatwhere.indexer.vectors.index import VectorIndex, use_threads
from whatwhere.indexer.vectors.names import AUTO, EXACT
from whatwhere.indexer.vectors.segment import Segment

DESCRIPTOR = "fused"
REGION = Box(0.2, 0.2, 0.8, 0.8)
RESULTS, QUERIES = 10, 200
FACTORIES = "Flat;SQ8;IVF1024,Flat;HNSW32;auto"
SLOW_TO_BUILD, SLOW_FROM = "HNSW", 500_000  # hours for a million vectors on two cores

Vectors = NDArray[np.float32]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000", help="1000000 takes 20 GB of memory and of disk")
    parser.add_argument("--factories", default=FACTORIES)
    parser.add_argument("--count", type=int, default=400, help="photographs")
    arguments = parser.parse_args()
    print("| vectors | index | build, s | bytes per vector | p50, ms | p95, ms | recall@10, % |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        real, regions = of_photographs(Path(folder), arguments.count)
        queries = list(made_of(regions, QUERIES, like=0.85, seed=1))
        for size in map(int, arguments.sizes.split(",")):
            vectors = made_of(real, size)
            exact = mapped(vectors, EXACT, Path(folder))
            for name in arguments.factories.split(";"):
                factory = factory_for(size, vectors.shape[1]) if name == AUTO else name
                if not (SLOW_TO_BUILD in factory and size >= SLOW_FROM):
                    print(
                        f"| {size:,} | {factory} | {row(vectors, factory, exact, queries, Path(folder))} |", flush=True
                    )


def of_photographs(folder: Path, count: int) -> tuple[Vectors, Vectors]:
    """Index `count` photographs; return their vectors, and those of a region of each."""
    found = sorted(DATA.rglob("*.jpg")) or list(INDEXED_PHOTOGRAPHS)
    index_paths(found[:: max(1, len(found) // count)][:count], folder / "c.ww")
    with open_collection(folder / "c.ww") as reader:
        return of_collection(reader)


def of_collection(reader: CollectionReader) -> tuple[Vectors, Vectors]:
    """Return the vectors of a collection's images, and those of a region of each."""
    method, index = find_descriptor(DESCRIPTOR), reader.index(DESCRIPTOR)
    stored = (reader.description(reader.indexed_image(image)) for image in reader.ids.tolist())
    regions = [method.describe(entry, index.whiteners, REGION) for entry in stored]
    return np.concatenate([segment.vectors(segment.ids) for segment in index.vectors.segments]), np.stack(regions)


def made_of(real: Vectors, count: int, like: float = 0.75, seed: int = 0) -> Vectors:
    """Make `count` unit vectors: real ones, each mixed with four others to a cosine of `like`."""
    random = np.random.default_rng(seed)
    made = np.empty((count, real.shape[1]), dtype=np.float32)
    centerd = real - real.mean(axis=0)
    for start in range(0, count, 20_000):
        part = made[start : start + 20_000]
        mixture = np.zeros_like(part)
        for _ in range(4):
            shares = random.normal(size=(len(part), 1)).astype(np.float32)
            mixture += shares * centerd[random.integers(0, len(real), len(part))]
        mixture /= np.linalg.norm(mixture, axis=1, keepdims=True)
        part[:] = like * real[random.integers(0, len(real), len(part))] + (1 - like**2) ** 0.5 * mixture
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


def mapped(vectors: Vectors, factory: str, folder: Path) -> VectorIndex:
    """Write an index and map it, as a server does."""
    path = folder / f"{factory}.faiss"
    Segment.build(np.arange(len(vectors)), vectors, factory).save(path)
    return VectorIndex((Segment.map(path, path.stat().st_size),))


def row(vectors: Vectors, factory: str, exact: VectorIndex, queries: Sequence[Vectors], folder: Path) -> str:
    """Return the table cells of one index."""
    started = time.perf_counter()
    index = mapped(vectors, factory, folder)
    built = time.perf_counter() - started
    use_threads(1)
    index.search(queries[0], RESULTS)
    times = []
    for query in queries:
        started = time.perf_counter()
        index.search(query, RESULTS)
        times.append(1000 * (time.perf_counter() - started))
    found = recall(index, exact, queries, RESULTS)
    size = (folder / f"{factory}.faiss").stat().st_size / len(vectors)
    p50, p95 = statistics.median(times), float(np.quantile(times, 0.95))
    return f"{built:.0f} | {size:,.0f} | {p50:.2f} | {p95:.2f} | {100 * found:.1f}"


def recall(index: VectorIndex, exact: VectorIndex, queries: Sequence[Vectors], count: int) -> float:
    """Return the recall: the share of the exact results that an index finds."""
    found = [np.intersect1d(index.search(query, count)[1], exact.search(query, count)[1]) for query in queries]
    return statistics.fmean(len(each) / count for each in found)


if __name__ == "__main__":
    main()
