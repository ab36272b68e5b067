"""The data sets by name."""

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
    """Read a data set from the folders of its pictures and its ground truth, which voc2010 and folders can do without.

    Raises UnknownName for a name that is not in BENCHMARKS, BenchmarkUnreadable for what is missing or torn.
    """
    if name not in BENCHMARKS:
        raise UnknownName(f"no data set is called {name!r}: there are {', '.join(BENCHMARKS)}", field="name")
    if not images:
        raise BenchmarkUnreadable(f"{name}: no folder of pictures was given; give one or several")
    if name in _WITHOUT:
        return _WITHOUT[name](images, ground_truth)
    if ground_truth is None:
        raise BenchmarkUnreadable(f"{name} has ground truth of its own: give the place where it lies")
    return _WITH_GROUND_TRUTH[name](images, ground_truth)
