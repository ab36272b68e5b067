"""Load data sets by name."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from whatwhere.indexer.errors import BenchmarkUnreadable, UnknownName
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark
from whatwhere.service.evaluation.retrieval.folders import read_folders
from whatwhere.service.evaluation.retrieval.oxford import read_oxford
from whatwhere.service.evaluation.retrieval.revisited import read_revisited
from whatwhere.service.evaluation.retrieval.voc import read_voc

_WITH_GROUND_TRUTH: Mapping[str, Callable[[Sequence[Path], Path], Benchmark]] = {
    "oxford5k": partial(read_oxford, "oxford5k"),
    "paris6k": partial(read_oxford, "paris6k"),
    "roxford5k": partial(read_revisited, "roxford5k"),
    "rparis6k": partial(read_revisited, "rparis6k"),
}
_WITHOUT: Mapping[str, Callable[[Sequence[Path], Path | None], Benchmark]] = {
    "voc2010": read_voc,
    "folders": read_folders,
}
BENCHMARKS = (*_WITH_GROUND_TRUTH, *_WITHOUT)


def load_benchmark(name: str, images: Sequence[Path], ground_truth: Path | None = None) -> Benchmark:
    """Read a data set from its picture folders and its ground truth, which is optional for voc2010 and folders.

    Raises UnknownName if the name is not in BENCHMARKS, BenchmarkUnreadable if files are missing or corrupt.
    """
    if name not in BENCHMARKS:
        raise UnknownName(f"unknown data set {name!r}: choose from {', '.join(BENCHMARKS)}", field="name")
    if not images:
        raise BenchmarkUnreadable(f"{name}: no image folder was given; give at least one")
    if name in _WITHOUT:
        return _WITHOUT[name](images, ground_truth)
    if ground_truth is None:
        raise BenchmarkUnreadable(f"{name} needs its ground truth: give its path")
    return _WITH_GROUND_TRUTH[name](images, ground_truth)
