"""Score localization: search for each query's box on the pictures of the other queries of its building.

The ground truth is the other query's official box. The measure is the mean intersection over union (IoU) over all
ordered pairs of queries of one group with different pictures. A method that finds no box scores 0 on that pair.

Measured with the default network, rank 8, on the 16 ordered pairs of a subset of Paris6k, in percent: whole image 33.2;
NMF from stored factors 54.3, from new activations 58.9; exhaustive windows 52.3; AML 51.8.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from types import MappingProxyType
from typing import TypeAlias

from torch import Tensor

from whatwhere.indexer.backbones.backbone import Backbone
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import QuantizedFactors
from whatwhere.indexer.images.decode import decode_image
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark, BenchmarkQuery
from whatwhere.service.evaluation.retrieval.sources import read_bytes
from whatwhere.service.evaluation.retrieval.windows import approximate_window, exhaustive_window
from whatwhere.service.search.localize import EXACT_SHORTER_SIDE, localize_exact, localize_stored


@dataclass(frozen=True)
class QueryPicture:
    """Hold a query's picture: activations [h, w, C] at full size and at a shorter side of 224 pixels, and factors.

    `width` and `height` are the size of the upright original in pixels.
    """

    activations: Tensor
    small_activations: Tensor
    factors: QuantizedFactors
    width: int
    height: int


@dataclass(frozen=True)
class Localization:
    """Hold the mean IoU of each method of `METHODS`, in [0, 1], over `pairs` ordered pairs."""

    pairs: int
    mean_iou: Mapping[str, float]


# query picture, its box, picture to search → box found
Method: TypeAlias = Callable[[QueryPicture, Box, QueryPicture], Box | None]
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "whole image": lambda query, region, result: WHOLE_IMAGE,
        "NMF stored": lambda query, region, result: localize_stored(query.factors, region, [result.factors])[0],
        "NMF exact": lambda query, region, result: localize_exact(
            query.small_activations, region, [result.small_activations]
        )[0],
        "exhaustive windows": lambda query, region, result: exhaustive_window(
            query.activations, region, result.activations
        ),
        "AML": lambda query, region, result: approximate_window(query.activations, region, result.activations),
    }
)


def localize_queries(
    benchmark: Benchmark,
    backbone: Backbone,
    rank: int,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Localization | None:
    """Describe the pictures of a data set's queries and score localization; None if there is no pair.

    `on_progress` receives the number of pairs done and in total. All pictures are held in memory, 2 MB each with the
    default network. Raises BenchmarkUnreadable if a file is missing, UnreadableImage if a file is not an image.
    """
    describer = Describer(backbone, rank)
    names = sorted({query.image for pair in _pairs(benchmark) for query in pair})
    pictures = {name: _read_picture(benchmark, name, describer) for name in names}
    return localize(benchmark, pictures, on_progress)


def localize(
    benchmark: Benchmark,
    pictures: Mapping[str, QueryPicture],
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Localization | None:
    """Apply every method to every pair, with the queries' pictures by name; None if there is no pair.

    `on_progress` receives the number of pairs done and in total. Raises BenchmarkUnreadable if a box exceeds its
    picture.
    """
    pairs = list(_pairs(benchmark))
    overlaps = []
    for done, (query, other) in enumerate(pairs, start=1):
        overlaps.append(_overlaps(query, other, pictures))
        on_progress(done, len(pairs))
    if not overlaps:
        return None
    return Localization(len(pairs), {name: statistics.fmean(overlap[name] for overlap in overlaps) for name in METHODS})


def _pairs(benchmark: Benchmark) -> Iterator[tuple[BenchmarkQuery, BenchmarkQuery]]:
    """Yield the ordered pairs of one group's queries that have boxes, on different pictures."""
    groups: dict[str, list[BenchmarkQuery]] = {}
    for query in benchmark.queries:
        if query.box is not None:
            groups.setdefault(query.group, []).append(query)
    for queries in groups.values():
        yield from ((query, other) for query, other in permutations(queries, 2) if query.image != other.image)


def _overlaps(query: BenchmarkQuery, other: BenchmarkQuery, pictures: Mapping[str, QueryPicture]) -> dict[str, float]:
    """Return each method's IoU with the other query's box."""
    asked, searched = pictures[query.image], pictures[other.image]
    region, truth = _box(query, asked), _box(other, searched)
    found = {name: method(asked, region, searched) for name, method in METHODS.items()}
    return {name: box.intersection_over_union(truth) if box else 0.0 for name, box in found.items()}


def _box(query: BenchmarkQuery, picture: QueryPicture) -> Box:
    box = query.region(picture.width, picture.height)
    assert box is not None  # `_pairs` yields only queries with boxes
    return box


def _read_picture(benchmark: Benchmark, name: str, describer: Describer) -> QueryPicture:
    path = benchmark.query_images[name]
    content = read_bytes(path)
    full = decode_image(content, str(path))
    small = decode_image(content, str(path), shorter_side=EXACT_SHORTER_SIDE)
    activations, small_activations = describer.backbone.activations([full.pixels, small.pixels])
    (description,) = describer.describe_activations([activations])
    return QueryPicture(activations, small_activations, description.factors, full.width, full.height)
