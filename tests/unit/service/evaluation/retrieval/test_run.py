"""A whole evaluation of packaged photographs against the same thing written out in NumPy."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.conftest import INDEXED_PHOTOGRAPHS, QUERY_PHOTOGRAPH
from whatwhere.indexer.backbones.backbone import load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box
from whatwhere.indexer.errors import BenchmarkUnreadable, InvalidRequest, UnknownName, WhitenerUnavailable
from whatwhere.indexer.features import whitening
from whatwhere.indexer.features.describe import POOLED, Describer
from whatwhere.indexer.features.descriptors import find_descriptor, training_rows
from whatwhere.indexer.features.names import BASELINES
from whatwhere.service.evaluation.retrieval import run
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark, BenchmarkQuery, Coverage, Judgment, PixelBox
from whatwhere.service.evaluation.retrieval.datasets import load_benchmark
from whatwhere.service.evaluation.retrieval.features import FeatureCache, Picture, read_description
from whatwhere.service.evaluation.retrieval.run import EXPANSION, TABLE_ORDER, Evaluation, EvaluationSettings, evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = {path.stem: path for path in (*INDEXED_PHOTOGRAPHS, QUERY_PHOTOGRAPH)}
CLASSES = {
    "astronaut": "sky",
    "rocket": "sky",
    "china": "sky",
    "coffee": "table",
    "flower": "table",
    "chelsea": "table",
}
# In pixels of the left and the right view (741 x 500) and the astronaut (512 x 512), with the fractions by hand.
BOXES = {
    "motorcycle_left": (PixelBox(0, 0, 370.5, 250), Box(0, 0, 0.5, 0.5)),
    "motorcycle_right": (PixelBox(74.1, 100, 666.9, 500), Box(0.1, 0.2, 0.9, 1)),
    "astronaut": (PixelBox(128, 0, 384, 256), Box(0.25, 0, 0.75, 0.5)),
    "coffee": (None, None),
}


def boxed(images: Mapping[str, Path] = ALL, readings: Sequence[str] = tuple(ALL), **changes: object) -> Benchmark:
    """Return a data set like Oxford's, in which each picture is a reading of its own, with it as the only positive.

    The average precision of one positive at rank r is 1 / (2 r), at rank 1 it is 1: so the scores tell the ranking.
    """
    nothing: frozenset[str] = frozenset()
    judgments = {name: Judgment(frozenset({name}), nothing) for name in readings}
    groups = {"motorcycle_left": "motorbike", "motorcycle_right": "motorbike"}
    queries = tuple(
        BenchmarkQuery(f"{name}_1", name, groups.get(name, name), box, judgments) for name, (box, _) in BOXES.items()
    )
    files = {name: ALL[name] for name in BOXES}
    coverage = Coverage(len(images), len(queries), None, None, 0, ())
    made = Benchmark("boxed", images, files, queries, tuple(readings), ("mAP",), coverage, instances=True)
    return replace(made, **changes)  # type: ignore[arg-type]


def rankings(evaluation: Evaluation, descriptor: str, expansion: int) -> dict[str, list[str]]:
    """Return what each query found, best first, from the scores of a `boxed` data set."""
    (score,) = (each for each in evaluation.methods if (each.descriptor, each.expansion) == (descriptor, expansion))
    found = {}
    for query in evaluation.benchmark.queries:
        precisions = {reading: values[query.name] for reading, values in score.queries.items()}
        found[query.name] = sorted(precisions, key=lambda name: -precisions[name])
        ranks = sorted(1 if value == 1 else round(1 / (2 * value)) for value in precisions.values())
        assert ranks == list(range(1, len(precisions) + 1))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that all these tests keep features in."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def settings(folder: Path) -> EvaluationSettings:
    """Give settings with the ready-made whiteners, without localization."""
    return EvaluationSettings(folder, localization=False, device="cpu")


@pytest.fixture(scope="module")
def evaluated(settings: EvaluationSettings) -> Evaluation:
    """Give the scores of every descriptor."""
    return evaluate(boxed(), settings)


class Reference:
    """The same evaluation written out: descriptions, vectors, one matrix product."""

    def __init__(self, folder: Path) -> None:
        self.describer = Describer(load_backbone(DEFAULT_BACKBONE, torch.device("cpu")), 8, tuple(POOLED))
        self._cache = FeatureCache(folder, self.describer)

    def vector(self, descriptor: str, name: str, box: Box | None = None) -> NDArray[np.float32]:
        """Return a vector by the ready-made whiteners: baselines crop, factor descriptors keep what is in the box."""
        method = find_descriptor(descriptor)
        crop = box if box and descriptor in BASELINES else WHOLE_IMAGE
        picture = Picture(ALL[name], crop)
        description = read_description(self._cache.describe([picture])[picture])
        whiteners = [whitening.find(self.describer.whitener_key(rows)) for rows in method.whiteners]
        return method.describe(description, whiteners, None if descriptor in BASELINES else box)

    def training_rows(self, name: str) -> NDArray[np.float32]:
        """Return the rows of all photographs that a whitener is trained on."""
        pictures = [Picture(path) for path in ALL.values()]
        places = self._cache.describe(pictures)
        return np.concatenate([training_rows(name, read_description(places[picture])).numpy() for picture in pictures])


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    """Give what the evaluation is compared with."""
    return Reference(folder)


def best_first(vector: NDArray[np.float32], searched: NDArray[np.float32]) -> list[int]:
    return [int(position) for position in np.argsort(-(searched @ vector), kind="stable")]


# --- rankings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("descriptor", TABLE_ORDER)
def test_a_single_pass_ranks_by_the_inner_product(evaluated: Evaluation, reference: Reference, descriptor: str) -> None:
    """Baselines see only the crop of a query; factor descriptors see the picture and keep what is in the box."""
    names = list(ALL)
    searched = np.stack([reference.vector(descriptor, name) for name in names])
    expected = {
        f"{name}_1": [names[place] for place in best_first(reference.vector(descriptor, name, box), searched)]
        for name, (_, box) in BOXES.items()
    }

    assert rankings(evaluated, descriptor, 0) == expected


@pytest.mark.parametrize("descriptor", TABLE_ORDER)
def test_expansion_adds_the_first_results_but_not_the_query_s_own_picture(
    evaluated: Evaluation, reference: Reference, descriptor: str
) -> None:
    """Five others, whose vectors are added to the query's."""
    names = list(ALL)
    searched = np.stack([reference.vector(descriptor, name) for name in names])
    expected = {}
    for name, (_, box) in BOXES.items():
        vector = reference.vector(descriptor, name, box)
        others = [place for place in best_first(vector, searched) if names[place] != name][:5]
        expected[f"{name}_1"] = [names[place] for place in best_first(vector + searched[others].sum(axis=0), searched)]

    assert rankings(evaluated, descriptor, EXPANSION) == expected


def test_expansion_takes_five_also_where_the_query_is_not_searched(
    settings: EvaluationSettings, reference: Reference
) -> None:
    """As in the revisited sets."""
    names = [name for name in ALL if name != "coffee"]
    searched = np.stack([reference.vector("mac", name) for name in names])
    vector = reference.vector("mac", "coffee")
    chosen = best_first(vector, searched)[:5]
    expected = [names[place] for place in best_first(vector + searched[chosen].sum(axis=0), searched)]

    found = evaluate(boxed({name: ALL[name] for name in names}, names), replace(settings, descriptors=("mac",)))

    assert rankings(found, "mac", EXPANSION)["coffee_1"] == expected


def test_the_box_decides_what_is_found(evaluated: Evaluation, settings: EvaluationSettings) -> None:
    """Without their boxes the queries find other things: the comparison above would see a box that is ignored."""
    whole = boxed()
    queries = tuple(replace(query, box=None) for query in whole.queries)

    found = evaluate(replace(whole, queries=queries), settings)

    for descriptor in TABLE_ORDER:
        assert rankings(found, descriptor, 0) != rankings(evaluated, descriptor, 0)


# --- scores -------------------------------------------------------------------------------------------------------


def trapezoids(ranking: Sequence[str], positives: set[str], depth: int) -> float:
    """Return the area under precision over recall of the first `depth`, by its definition."""
    area, hits = 0.0, 0
    for rank, name in enumerate(ranking[:depth]):
        if name in positives:
            area += ((hits / rank if rank else 1) + (hits + 1) / (rank + 1)) / 2
            hits += 1
    return area / min(depth, len(positives))


def test_classes_of_a_csv_are_scored_by_the_ranking(
    settings: EvaluationSettings, reference: Reference, tmp_path: Path
) -> None:
    """Each picture asks for the others of its class, itself skipped; the mean is over the queries."""
    images = tmp_path / "images"
    images.mkdir()
    for name in CLASSES:
        (images / ALL[name].name).symlink_to(ALL[name])
    listed = tmp_path / "classes.csv"
    listed.write_text("name,class\n" + "".join(f"{ALL[name].name},{kind}\n" for name, kind in CLASSES.items()))
    names = list(CLASSES)
    searched = np.stack([reference.vector("r-mac", name) for name in names])
    expected = {}
    for name in names:
        ranking = [names[place] for place in best_first(reference.vector("r-mac", name), searched)]
        ranking.remove(name)
        positives = {other for other in names if CLASSES[other] == CLASSES[name]} - {name}
        expected[ALL[name].name] = trapezoids(ranking, positives, 30)

    found = evaluate(load_benchmark("folders", [images], listed), replace(settings, descriptors=("r-mac",)))

    single = found.methods[0]
    assert single.queries["same class"] == pytest.approx(expected)
    assert single.means["same class"]["AP@30"] == pytest.approx(np.mean(list(expected.values())))
    assert 0 < single.means["same class"]["mAP"] < 1


def test_a_reading_s_mean_is_over_the_queries_that_it_judges(settings: EvaluationSettings) -> None:
    """One of two that find their own picture first; a reading that judges none is in neither table."""
    nothing: frozenset[str] = frozenset()
    first, second, *_ = boxed().queries
    queries = (
        replace(first, box=None, judgments={"own": Judgment(frozenset({first.image}), nothing)}),
        replace(second, box=None, judgments={"other": Judgment(nothing, nothing)}),
    )
    benchmark = boxed(queries=queries, readings=("own", "other", "none"))

    found = evaluate(benchmark, replace(settings, descriptors=("gem",)))

    assert found.methods[0].means == {"own": {"mAP": 1.0}}
    assert found.methods[0].queries == {"own": {first.name: 1.0}}


def test_descriptors_come_in_the_order_of_the_table_single_pass_first(settings: EvaluationSettings) -> None:
    """However they were asked for."""
    found = evaluate(boxed(), replace(settings, descriptors=("fused", "mac", "fused")))

    assert [(score.descriptor, score.expansion) for score in found.methods] == [
        ("mac", 0),
        ("mac", 5),
        ("fused", 0),
        ("fused", 5),
    ]


def test_bytes_an_image_are_those_that_region_queries_need(settings: EvaluationSettings) -> None:
    """By hand, of 512 x 512 pixels (16 x 16 cells) and of 600 x 400, which become 768 x 512 (24 x 16), in the mean.

    Factors: 8 rows of 1280 bytes, 8 bytes a cell, two scales of 4 bytes for each of the 8. Rows of a baseline: 1280
    bytes; R-MAC has 1 + 1 + 4 + 9 of them on a square and 1 + 2 + 6 + 12 on the wider grid.
    """
    square, wide = 8 * 1280 + 8 * 16 * 16 + 8 * 8, 8 * 1280 + 8 * 24 * 16 + 8 * 8
    squares_rmac, wides_rmac = 15 * 1280, 21 * 1280
    images = {name: ALL[name] for name in ("astronaut", "coffee")}

    found = evaluate(boxed(images, tuple(images)), settings)

    assert found.bytes_per_image == {
        "mac": 1280,
        "r-mac": (squares_rmac + wides_rmac) / 2,
        "crow": 1280,
        "gem": 1280,
        "what": (square + wide) / 2,
        "what-and-where": (square + wide) / 2,
        "fused": (square + wide + squares_rmac + wides_rmac) / 2,
    }


# --- whitening ----------------------------------------------------------------------------------------------------


def whitened(rows: NDArray[np.float32], trained_on: NDArray[np.float32], dimensions: int) -> NDArray[np.float64]:
    """Return the unit sum of whitened rows, the whitener from NumPy's own singular vectors, rounded to 16 bits."""
    mean = trained_on.astype(np.float64).mean(axis=0)
    _, spreads, directions = np.linalg.svd(trained_on - mean, full_matrices=False)
    projection = (directions[:dimensions].T / spreads[:dimensions]) * np.sqrt(len(trained_on) - 1)
    summed: NDArray[np.float64] = ((rows - mean.astype(np.float16)) @ projection.astype(np.float16)).sum(axis=0)
    return summed / np.linalg.norm(summed)


@pytest.fixture(scope="module")
def photographs_to_whiten_on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of links to all photographs, in their order."""
    folder = tmp_path_factory.mktemp("varied")
    for number, path in enumerate(ALL.values()):
        (folder / f"{number}{path.suffix}").symlink_to(path)
    return folder


def test_whiteners_are_trained_on_the_folder(
    settings: EvaluationSettings, reference: Reference, photographs_to_whiten_on: Path
) -> None:
    """MAC whitened to four dimensions, by NumPy and by the evaluation."""
    rows = reference.training_rows("mac")
    vectors = np.stack([whitened(row[np.newaxis], rows, 4) for row in rows])
    names = list(ALL)
    expected = [names[place] for place in best_first(vectors[names.index("coffee")], vectors)]
    chosen = replace(settings, descriptors=("mac",), dimensions=4, whiten_on=(photographs_to_whiten_on,))

    found = evaluate(boxed(), chosen)

    assert rankings(found, "mac", 0)["coffee_1"] == expected
    assert found.settings["dimensions"] == {"mac": 4}
    assert found.settings["whitened_on"] == [photographs_to_whiten_on.name]


def test_the_collection_itself_is_whitened_on_like_any_folder(
    settings: EvaluationSettings, photographs_to_whiten_on: Path
) -> None:
    """The same photographs, the same scores; the report says which."""
    chosen = replace(settings, descriptors=("r-mac", "what"), dimensions=16)

    on_folder = evaluate(boxed(), replace(chosen, whiten_on=(photographs_to_whiten_on,)))
    on_collection = evaluate(boxed(), replace(chosen, whiten_on_collection=True))
    ready_made = evaluate(boxed(), chosen)

    assert on_collection.methods == on_folder.methods
    assert on_collection.methods != ready_made.methods
    assert on_collection.settings["whitened_on"] == "the searched collection"


def test_few_photographs_to_whiten_on_are_warned_about(
    settings: EvaluationSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Nine are not three hundred."""
    with caplog.at_level(logging.WARNING):
        evaluate(boxed(), replace(settings, descriptors=("mac",), whiten_on_collection=True))

    assert "only 9 photographs" in caplog.text


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a network is loaded."""

    def fail(*_: object, **__: object) -> None:
        pytest.fail("a network was loaded")

    monkeypatch.setattr(run, "load_backbone", fail)


@pytest.mark.usefixtures("no_work")
def test_a_folder_and_the_collection_to_whiten_on_are_refused(tmp_path: Path) -> None:
    """Before anything is done."""
    both = EvaluationSettings(tmp_path / "cache", whiten_on=(tmp_path,), whiten_on_collection=True)

    with pytest.raises(InvalidRequest, match="not both") as caught:
        evaluate(boxed(), both)

    assert caught.value.field == "whiten_on"
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("changes", [{"descriptors": ("mac", "why")}, {"preset": "why"}])
def test_an_unknown_name_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    """Before anything is done, however good the other names are."""
    settings = replace(EvaluationSettings(tmp_path / "cache"), **changes)  # type: ignore[arg-type]

    with pytest.raises(UnknownName, match=r"'why' is unknown; there are: "):
        evaluate(boxed(), settings)

    assert not (tmp_path / "cache").exists()


def test_a_network_without_ready_made_whiteners_is_refused(tmp_path: Path) -> None:
    """Before anything is described, with what to do."""
    settings = EvaluationSettings(tmp_path / "cache", backbone="efficientnet-lite1", device="cpu")

    with pytest.raises(WhitenerUnavailable, match=r"of efficientnet-lite1 .* with --whiten-on DIR"):
        evaluate(boxed(), settings)

    assert not (tmp_path / "cache").exists()


def test_a_picture_that_cannot_be_read_ends_the_evaluation(settings: EvaluationSettings, tmp_path: Path) -> None:
    """A score without it would be wrong."""
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(ALL["rocket"].read_bytes()[:2000])

    with pytest.raises(BenchmarkUnreadable, match=r"torn\.jpg"):
        evaluate(boxed(ALL | {"torn": torn}), settings)


# --- what is told -------------------------------------------------------------------------------------------------


def test_the_settings_are_told(evaluated: Evaluation) -> None:
    """Those that decide the numbers; ready-made whiteners have lengths of their own."""
    told = evaluated.settings

    assert {name: told[name] for name in ("backbone", "layer", "precision", "preset", "rank", "expansion")} == {
        "backbone": "efficientnet-lite0",
        "layer": "head",
        "precision": "float32",
        "preset": "default",
        "rank": 8,
        "expansion": 5,
    }
    assert told["whitened_on"] == "the ready-made whiteners"
    assert told["dimensions"] == {"mac": 256, "r-mac": 512, "crow": 256, "gem": 256, "cells": 512}
    assert len(str(told["weights_sha256"])) == 64
    assert isinstance(told["libraries"], dict)
    assert told["libraries"].keys() == {"whatwhere", "torch", "numpy", "Pillow"}


def test_every_stage_is_told_to_its_end(settings: EvaluationSettings) -> None:
    """Nine pictures and the crops of three boxes; nine vectors; two pairs."""
    told: dict[str, tuple[int, int]] = {}
    chosen = replace(settings, descriptors=("mac",), whiten_on_collection=True, localization=True)

    evaluate(
        boxed(),
        chosen,
        lambda stage, done, total: told.setdefault(stage, (0, 0)) and told.update({stage: (done, total)}),
    )

    assert list(told) == ["whitening", "describing", "vectors", "localizing"]
    assert told["whitening"] == told["vectors"] == (9, 9)
    assert told["localizing"] == (2, 2)


def test_queries_of_one_building_are_localized(settings: EvaluationSettings) -> None:
    """The boxes of the two views cover 0.25 and 0.64 of them."""
    found = evaluate(boxed(), replace(settings, descriptors=("mac",), localization=True)).localization

    assert found is not None
    assert found.pairs == 2
    assert found.mean_iou["whole image"] == pytest.approx((0.25 + 0.64) / 2)


@pytest.mark.parametrize(("instances", "localization"), [(False, True), (True, False)])
def test_nothing_is_localized_where_it_means_nothing_or_is_not_wanted(
    settings: EvaluationSettings, instances: bool, localization: bool
) -> None:
    """Pictures of one class show different things."""
    chosen = replace(settings, descriptors=("mac",), localization=localization)

    assert evaluate(boxed(instances=instances), chosen).localization is None
