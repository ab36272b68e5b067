"""Read ROxford5k and RParis6k (Radenović et al. 2018): the ground truth is a pickle, `gnd_roxford5k.pkl`.

It holds `imlist` (searched), `qimlist` (queries, not searched) and `gnd`: for each query the positions in `imlist` of
`easy`, `hard` and `junk` pictures, and the box `bbx`. Readings and metrics are those of the authors' evaluation: easy
(hard pictures are skipped), medium (both count), hard (easy pictures are skipped).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.service.evaluation.retrieval.benchmark import (
    Benchmark,
    BenchmarkQuery,
    Judgment,
    Pictures,
    Protocol,
    assemble,
    pixel_box,
)
from whatwhere.service.evaluation.retrieval.oxford import PARIS_CORRUPT
from whatwhere.service.evaluation.retrieval.pickles import read_plain_pickle
from whatwhere.service.evaluation.retrieval.sources import find_pictures, named_pictures

READINGS = ("easy", "medium", "hard")
METRICS = ("mAP", "mP@1", "mP@5", "mP@10")
_IMAGE_COUNTS = {"roxford5k": 4993, "rparis6k": 6322}
_QUERY_COUNT = 70
_LABELS = ("easy", "hard", "junk")
# Queries for one building list the same pictures, though not always with the same label.
_SHARED_BY_ONE_BUILDING = 0.5


def read_revisited(name: str, images: Sequence[Path], ground_truth: Path) -> Benchmark:
    """Read roxford5k or rparis6k: pictures below `images`, `ground_truth` the pickle or the folder that holds it.

    Pictures in neither list are searched too, as distractors. Raises BenchmarkUnreadable if files are missing or
    invalid.
    """
    path = ground_truth / f"gnd_{name}.pkl" if ground_truth.is_dir() else ground_truth
    truth = _mapping(read_plain_pickle(path), f"{path}", ("imlist", "qimlist", "gnd"))
    searched, asked = (_names(truth[key], f"{path}: {key}") for key in ("imlist", "qimlist"))
    if len(set(searched)) < len(searched):
        raise BenchmarkUnreadable(f"{path}: imlist has a picture twice; fetch the file again")
    queries = _read_queries(truth["gnd"], searched, asked, path)

    found = {file: within for file, within in find_pictures(images).items() if file.stem not in PARIS_CORRUPT}
    official, distractors = named_pictures(found, {*searched, *asked}.__contains__)
    in_list = {image: official[image] for image in searched if image in official}
    pictures = Pictures(in_list | distractors, official, len(distractors))
    protocol = Protocol(name, READINGS, METRICS, _IMAGE_COUNTS[name], _QUERY_COUNT, instances=True)
    return assemble(protocol, pictures, queries)


def _read_queries(truth: object, searched: list[str], asked: list[str], path: Path) -> list[BenchmarkQuery]:
    if not isinstance(truth, list | tuple) or len(truth) != len(asked):
        raise BenchmarkUnreadable(f"{path}: gnd is not a list with one entry per query in qimlist ({len(asked)})")
    queries: list[BenchmarkQuery] = []
    shown_by: dict[str, frozenset[str]] = {}  # group → pictures in the lists of its first query
    for number, (image, entry) in enumerate(zip(asked, truth, strict=True), start=1):
        where = f"{path}: gnd of {image}"
        fields = _mapping(entry, where, (*_LABELS, "bbx"))
        labels = {label: _chosen(searched, fields[label], f"{where}: {label}") for label in _LABELS}
        _check_apart(labels, where)
        shown = labels["easy"] | labels["hard"] | labels["junk"]
        group = next((name for name, other in shown_by.items() if _one_building(shown, other)), image)
        shown_by.setdefault(group, shown)
        box = pixel_box(_listed(fields["bbx"], f"{where}: bbx"), where)
        queries.append(BenchmarkQuery(f"{number}-{image}", image, group, box, _judgments(labels)))
    return queries


def _judgments(labels: Mapping[str, frozenset[str]]) -> dict[str, Judgment]:
    """Return the judgments of each reading, as in revisitop's `compute_map_and_print`."""
    easy, hard, junk = (labels[label] for label in _LABELS)
    return {
        "easy": Judgment(easy, junk | hard),
        "medium": Judgment(easy | hard, junk),
        "hard": Judgment(hard, junk | easy),
    }


def _one_building(one: frozenset[str], other: frozenset[str]) -> bool:
    return len(one & other) > _SHARED_BY_ONE_BUILDING * len(one | other)


def _check_apart(labels: Mapping[str, frozenset[str]], where: str) -> None:
    every = [image for label in _LABELS for image in labels[label]]
    if len(set(every)) < len(every):
        twice = min(image for image in every if every.count(image) > 1)
        raise BenchmarkUnreadable(f"{where}: {twice} is in more than one of easy, hard and junk; fetch the file again")


def _chosen(searched: list[str], value: object, where: str) -> frozenset[str]:
    """Return the names at the positions in `value`."""
    positions = _listed(value, where)
    for position in positions:
        # An empty or MATLAB-made array holds floats.
        if isinstance(position, bool) or not isinstance(position, int | float) or not 0 <= position < len(searched):
            raise BenchmarkUnreadable(f"{where}: {position!r} is not a position in imlist, 0 to {len(searched) - 1}")
        if position != int(position):
            raise BenchmarkUnreadable(f"{where}: {position!r} is not a whole number")
    return frozenset(searched[int(position)] for position in positions)  # type: ignore[call-overload]  # checked above


def _names(value: object, where: str) -> list[str]:
    names = _listed(value, where)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise BenchmarkUnreadable(f"{where}: {wrong[0]!r} is not a picture name; fetch the file again")
    return [str(name) for name in names]


def _listed(value: object, where: str) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise BenchmarkUnreadable(f"{where} is a {type(value).__name__}, not a list or an array; fetch the file again")
    return value


def _mapping(value: object, where: str, keys: Sequence[str]) -> Mapping[str, object]:
    if not isinstance(value, dict) or (missing := [key for key in keys if key not in value]):
        lacks = f"lacks {', '.join(missing)}" if isinstance(value, dict) else f"is a {type(value).__name__}"
        raise BenchmarkUnreadable(f"{where} {lacks}: expected a dictionary with {', '.join(keys)}")
    return value
