"""Score descriptors on a data set: describe new pictures, whiten, rank, expand, localize."""

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.backbones.backbone import Backbone, choose_device, load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE, DEFAULT_PRECISION
from whatwhere.indexer.boxes import WHOLE_IMAGE
from whatwhere.indexer.errors import InvalidRequest, WhitenerUnavailable
from whatwhere.indexer.features import whitening
from whatwhere.indexer.features.describe import POOLED, Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.descriptors import Descriptor, expanded, find_descriptor
from whatwhere.indexer.features.names import (
    BASELINES,
    DEFAULT_DIMENSIONS,
    DEFAULT_PRESET,
    DEFAULT_RANK,
    FUSED,
    WHAT,
    WHAT_AND_WHERE,
    pooled_by,
)
from whatwhere.indexer.features.whitening import Whitener, WhitenerKey
from whatwhere.indexer.pipeline.train_whiteners import evenly_chosen, fit_whiteners, whiteners_of
from whatwhere.indexer.sources.scan import scan
from whatwhere.indexer.vectors.index import VectorIndex
from whatwhere.indexer.vectors.segment import Segment
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark, BenchmarkQuery
from whatwhere.service.evaluation.retrieval.features import FeatureCache, Picture, read_description, region_of
from whatwhere.service.evaluation.retrieval.localization import Localization, localize_queries
from whatwhere.service.evaluation.retrieval.metrics import scores

# baselines first, as in the tables of papers
TABLE_ORDER = (*BASELINES, WHAT, WHAT_AND_WHERE, FUSED)
EXPANSION = 5
_LIBRARIES = ("whatwhere", "torch", "numpy", "Pillow")


@dataclass(frozen=True)
class EvaluationSettings:
    """Set what is scored and how.

    Whiteners are trained on the photographs in the folders `whiten_on`, or on the searched pictures if
    `whiten_on_collection` is set; else the ready-made ones are used.
    """

    cache: Path
    descriptors: tuple[str, ...] = TABLE_ORDER
    preset: str = DEFAULT_PRESET
    backbone: str = DEFAULT_BACKBONE
    weights: Path | None = None
    precision: str = DEFAULT_PRECISION
    rank: int = DEFAULT_RANK
    dimensions: int = DEFAULT_DIMENSIONS
    whiten_on: tuple[Path, ...] = ()
    whiten_on_collection: bool = False
    localization: bool = True
    device: str = "auto"


@dataclass(frozen=True)
class MethodScore:
    """Hold one descriptor's scores: reading → metric → mean over the queries, in [0, 1].

    `queries` holds the main metric of each query: reading → query → value.
    """

    descriptor: str
    expansion: int
    means: Mapping[str, Mapping[str, float]]
    queries: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """Hold the scores, with the settings that produced them."""

    benchmark: Benchmark
    settings: Mapping[str, object]
    methods: tuple[MethodScore, ...]
    localization: Localization | None
    bytes_per_image: Mapping[str, int]


# stage, number done, total
OnProgress = Callable[[str, int, int], None]


def evaluate(
    benchmark: Benchmark, settings: EvaluationSettings, on_progress: OnProgress = lambda *_: None
) -> Evaluation:
    """Score the descriptors, single pass and after expansion, and localization if the queries have boxes.

    Raises InvalidRequest if settings exclude each other, UnknownName for an unknown descriptor, the errors of loading a
    backbone and a whitener, and BenchmarkUnreadable if a picture cannot be read.
    """
    if settings.whiten_on_collection and settings.whiten_on:
        raise InvalidRequest("whiten on the searched collection or on folders, not both", field="whiten_on")
    methods = [find_descriptor(name, settings.preset) for name in TABLE_ORDER if name in settings.descriptors]
    for name in settings.descriptors:
        find_descriptor(name, settings.preset)
    backbone = load_backbone(
        settings.backbone, choose_device(settings.device), weights=settings.weights, precision=settings.precision
    )
    describer = Describer(backbone, settings.rank, tuple(POOLED))
    run = _Run(benchmark, settings, FeatureCache(settings.cache, describer), methods, on_progress)
    whiteners = run.whiteners()
    vectors = run.vectors(whiteners)
    return Evaluation(
        benchmark,
        _reported(settings, backbone, whiteners),
        tuple(score for method in methods for score in run.scores(method, vectors)),
        _localization(benchmark, backbone, settings, on_progress),
        {name: found.bytes_per_image for name, found in vectors.items()},
    )


@dataclass(frozen=True)
class _Vectors:
    """Hold one descriptor's vectors of the searched pictures [N, D] and of the queries [Q, D].

    `bytes_per_image` is the mean size of the stored data that region queries of stored images need.
    """

    searched: NDArray[np.float32]
    queries: NDArray[np.float32]
    bytes_per_image: int


@dataclass(frozen=True)
class _Run:
    benchmark: Benchmark
    settings: EvaluationSettings
    cache: FeatureCache
    methods: Sequence[Descriptor]
    on_progress: OnProgress

    def whiteners(self) -> Mapping[str, Whitener]:
        """Return the whiteners that the descriptors need, by name."""
        names = whiteners_of(self.methods)
        describer = self.cache.describer
        if self.settings.whiten_on_collection:
            files = evenly_chosen(list(self.benchmark.images.values()))
        elif self.settings.whiten_on:
            files = evenly_chosen(scan(self.settings.whiten_on)[0])
        else:
            return {name: _ready_made(describer.whitener_key(name)) for name in names}
        pictures = [Picture(path) for path in files]
        places = self._described("whitening", pictures)
        descriptions = (read_description(places[picture]) for picture in pictures)
        return fit_whiteners(descriptions, describer, names, self.settings.dimensions)

    def vectors(self, whiteners: Mapping[str, Whitener]) -> Mapping[str, _Vectors]:
        """Return every descriptor's vectors. Baselines crop a query to its box, as in their papers."""
        whole = [Picture(path) for path in self.benchmark.images.values()]
        asked = [self.benchmark.query_images[query.image] for query in self.benchmark.queries]
        boxes = [region_of(query, path) for query, path in zip(self.benchmark.queries, asked, strict=True)]
        crops = [Picture(path, box or WHOLE_IMAGE) for path, box in zip(asked, boxes, strict=True)]
        uncropped = [Picture(path) for path in asked]
        places = self._described("describing", [*whole, *uncropped, *crops])
        searched: dict[str, list[NDArray[np.float32]]] = {method.name: [] for method in self.methods}
        queries: dict[str, list[NDArray[np.float32]]] = {method.name: [] for method in self.methods}
        sizes: dict[str, list[int]] = {method.name: [] for method in self.methods}
        for done, picture in enumerate(whole, start=1):
            description = read_description(places[picture])
            for method in self.methods:
                searched[method.name].append(method.describe(description, _of(method, whiteners)))
                sizes[method.name].append(_bytes_kept(method, description))
            self.on_progress("vectors", done, len(whole))
        for picture, crop, box in zip(uncropped, crops, boxes, strict=True):
            by_factors, by_crop = read_description(places[picture]), read_description(places[crop])
            for method in self.methods:
                description, region = (by_factors, box) if method.uses_factors else (by_crop, None)
                queries[method.name].append(method.describe(description, _of(method, whiteners), region))
        return {
            name: _Vectors(np.stack(searched[name]), np.stack(queries[name]), round(fmean(sizes[name])))
            for name in searched
        }

    def scores(self, method: Descriptor, vectors: Mapping[str, _Vectors]) -> Iterator[MethodScore]:
        """Yield the scores of a single pass, then those after expansion."""
        found = vectors[method.name]
        names = list(self.benchmark.images)
        index = VectorIndex((Segment.build(np.arange(len(names)), found.searched),))
        for expansion in (0, EXPANSION):
            rankings = {}
            for query, vector in zip(self.benchmark.queries, found.queries, strict=True):
                if expansion:
                    vector = self._expanded(index, vector, query, names)  # noqa: PLW2901 - the query from here on
                rankings[query.name] = [names[position] for position in index.search(vector, len(names))[1]]
            yield self._score(method.name, expansion, rankings)

    def _expanded(
        self, index: VectorIndex, vector: NDArray[np.float32], query: BenchmarkQuery, names: Sequence[str]
    ) -> NDArray[np.float32]:
        """Add the first results to the query, without the query's own picture."""
        _, positions = index.search(vector, EXPANSION + 1)
        others = [int(position) for position in positions if names[position] != query.image][:EXPANSION]
        return expanded(vector, [index.vector(position) for position in others])

    def _score(self, descriptor: str, expansion: int, rankings: Mapping[str, Sequence[str]]) -> MethodScore:
        main, *_ = metrics = self.benchmark.metrics
        means, queries = {}, {}
        for reading in self.benchmark.readings:
            asked = [query for query in self.benchmark.queries if reading in query.judgments]
            values = {
                query.name: found
                for query in asked
                if (found := scores(metrics, rankings[query.name], query.judgments[reading])) is not None
            }
            if values:
                means[reading] = {name: fmean(value[name] for value in values.values()) for name in metrics}
                queries[reading] = {name: value[main] for name, value in values.items()}
        return MethodScore(descriptor, expansion, means, queries)

    def _described(self, stage: str, pictures: Sequence[Picture]) -> Mapping[Picture, Path]:
        return self.cache.describe(pictures, lambda done, total: self.on_progress(stage, done, total))


def _ready_made(key: WhitenerKey) -> Whitener:
    try:
        return whitening.find(key)
    except WhitenerUnavailable as error:
        raise WhitenerUnavailable(
            f"no ready-made whitener for {key.descriptor} of {key.backbone} with these weights: train on an "
            "independent, varied set of photographs with --whiten-on DIR"
        ) from error


def _bytes_kept(method: Descriptor, description: Description) -> int:
    stored = description.factors
    factors = (stored.where, stored.what, stored.where_scale, stored.what_scale) if method.uses_factors else ()
    pooled = [description.pooled[name] for name in pooled_by([method])]
    return sum(array.nbytes for array in (*factors, *pooled))


def _of(method: Descriptor, whiteners: Mapping[str, Whitener]) -> list[Whitener]:
    return [whiteners[name] for name in method.whiteners]


def _localization(
    benchmark: Benchmark, backbone: Backbone, settings: EvaluationSettings, on_progress: OnProgress
) -> Localization | None:
    # Queries of one building show the same object; queries of a VOC class show different objects.
    if not settings.localization or not benchmark.instances:
        return None
    return localize_queries(
        benchmark, backbone, settings.rank, lambda done, total: on_progress("localizing", done, total)
    )


def _reported(settings: EvaluationSettings, backbone: Backbone, whiteners: Mapping[str, Whitener]) -> dict[str, object]:
    """Return the settings for the report; `dimensions` are those of each whitener."""
    whitened_on: object = [path.name for path in settings.whiten_on] or "the ready-made whiteners"
    return {
        "backbone": backbone.spec.name,
        "layer": backbone.spec.layer,
        "weights_sha256": backbone.weights_sha256,
        "precision": backbone.precision,
        "preset": settings.preset,
        "rank": settings.rank,
        "dimensions": {name: whitener.dimensions for name, whitener in whiteners.items()},
        "whitened_on": "the searched collection" if settings.whiten_on_collection else whitened_on,
        "expansion": EXPANSION,
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
