"""Measure the tables of service/evaluation/README.md in one run: `python -m tests.measure_evaluation`.

Scores every descriptor of both presets on a part of Paris6k with distractors, on Corel-1k, and on a part of COCO in
VOC's format. Also scores each half of the queries, networks on which no setting was tuned, and bfloat16.
"""

import csv
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from torch import Tensor

from tests.conftest import DATA
from whatwhere.indexer.backbones.backbone import choose_device, load_backbone
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box
from whatwhere.indexer.features.describe import POOLED, Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.descriptors import find_descriptor, global_descriptor
from whatwhere.indexer.pipeline.train_whiteners import fit_whiteners
from whatwhere.indexer.sources.scan import scan
from whatwhere.service.evaluation.retrieval import metrics
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark
from whatwhere.service.evaluation.retrieval.datasets import load_benchmark
from whatwhere.service.evaluation.retrieval.features import FeatureCache, Picture, read_description, region_of
from whatwhere.service.evaluation.retrieval.report import TITLES, best_in_bold
from whatwhere.service.evaluation.retrieval.run import TABLE_ORDER, EvaluationSettings, MethodScore, evaluate

CLASSES = ("beach", "bus", "dinosaur", "elephant", "flower", "food", "horse", "monument", "mountain", "people")


@dataclass(frozen=True)
class Task:
    """Hold a data set, independent photographs to train its whiteners, and the score to report."""

    title: str
    benchmark: Benchmark
    whiten_on: Path


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        settings = EvaluationSettings(Path(sys.argv[1] if len(sys.argv) > 1 else folder), localization=False)
        found = tasks(Path(folder))
        default = score(found, settings)
        thesis = score(found, replace(settings, preset="thesis"))
        show("Preset default", table(found, default, all_queries))
        show("Preset thesis", table(found, thesis, all_queries))
        show("Preset default, even queries", table(found, default, lambda values: values[::2]))
        show("Preset default, odd queries", table(found, default, lambda values: values[1::2]))
        for number in (1, 2):
            other = replace(settings, backbone=f"efficientnet-lite{number}")
            show(f"Preset default, EfficientNet-Lite{number}", table(found, score(found, other), all_queries))
        show("Regions on stored images, Paris", stored_regions(found[0], settings))
        show(
            "Preset default, bfloat16", table(found, score(found, replace(settings, precision="bfloat16")), all_queries)
        )


def tasks(folder: Path) -> list[Task]:
    """Return the data sets; each is whitened on another one, Paris also on its more varied distractors."""
    distractors, corel = DATA / "distractors", DATA / "corel1k"
    listed = folder / "corel1k.csv"
    with listed.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "class", "use"))
        for use, part, size in (("database", "images", 90), ("query", "queries", 10)):
            names = sorted((corel / part).iterdir(), key=lambda path: int(path.stem))
            writer.writerows((f"{part}/{path.name}", CLASSES[int(path.stem) // size], use) for path in names)
    paris = load_benchmark("paris6k", [DATA / "paris-mini/jpg", distractors], DATA / "paris-mini/gt")
    voc = load_benchmark("voc2010", [DATA / "coco128-voc/VOCdevkit/VOC2010"])
    return [
        Task("Paris, mAP", paris, corel / "images"),
        Task("Paris (whitened on its distractors)", paris, distractors),
        Task("Corel, AP@30", load_benchmark("folders", [corel], listed), distractors),
        Task("COCO, AP@30", voc, distractors),
    ]


Scores = Mapping[str, tuple[MethodScore, ...]]


def score(found: list[Task], settings: EvaluationSettings) -> Scores:
    """Evaluate every task."""
    return {
        task.title: evaluate(task.benchmark, replace(settings, whiten_on=(task.whiten_on,))).methods for task in found
    }


def all_queries(values: list[float]) -> list[float]:
    """Choose all queries."""
    return values


def table(found: list[Task], scores: Scores, choose: Callable[[list[float]], list[float]]) -> str:
    """Return descriptor by data set, single pass / after expansion by 5, in percent, the best in bold."""
    lines = ["| descriptor | " + " | ".join(task.title for task in found) + " |", "|---|" + "---:|" * len(found)]
    rows = {
        name: [
            [
                round(100 * fmean(choose(list(entry.queries[task.benchmark.readings[-1]].values()))), 1)
                for entry in scores[task.title]
                if entry.descriptor == name
            ]
            for task in found
        ]
        for name in TABLE_ORDER
    }
    lines += [f"| {TITLES[name]} | {' | '.join(cells)} |" for name, cells in best_in_bold(rows).items()]
    return "\n".join(lines)


def stored_regions(task: Task, settings: EvaluationSettings) -> str:
    """Compare R-MAC for a region: the windows in the box against new windows of the cropped activations."""
    describer = Describer(load_backbone(settings.backbone, choose_device()), settings.rank, tuple(POOLED))
    cache = FeatureCache(settings.cache, describer)

    def described(pictures: list[Picture]) -> list[Description]:
        places = cache.describe(pictures)
        return [read_description(places[picture]) for picture in pictures]

    training = described([Picture(path) for path in scan([task.whiten_on])[0]])
    (whitener,) = fit_whiteners(training, describer, ["r-mac"], settings.dimensions).values()
    benchmark = task.benchmark
    searched = described([Picture(path) for path in benchmark.images.values()])
    paths = [benchmark.query_images[query.image] for query in benchmark.queries]
    boxes = [region_of(query, path) or WHOLE_IMAGE for query, path in zip(benchmark.queries, paths, strict=True)]

    def windows(description: Description, region: Box | None = None) -> Tensor:
        """Return the second part's rows: R-MAC's."""
        return find_descriptor("fused").select(description, region)[1].rows

    by_rule = [windows(*asked) for asked in zip(described([*map(Picture, paths)]), boxes, strict=True)]
    by_crop = [windows(cropped) for cropped in described([*map(Picture, paths, boxes)])]
    vectors = np.stack([global_descriptor(windows(entry), whitener) for entry in searched])
    lines = ["| R-MAC of a region | bytes an image | mAP |", "|---|---:|---:|"]
    height, width, channels = searched[0].factors.height, searched[0].factors.width, searched[0].factors.what.shape[1]
    costs = (
        ("its rows, those of windows in the box", searched[0].pooled["r-mac"].nbytes, by_rule),
        ("activations in 8 bits, cropped", height * width * channels, by_crop),
    )
    for title, size, rows in costs:
        scores = [
            metrics.average_precision(
                np.array(list(benchmark.images))[np.argsort(-vectors @ global_descriptor(asked, whitener))],
                judgment.positives,
                judgment.junk,
            )
            for asked, judgment in zip(rows, (q.judgments["query excluded"] for q in benchmark.queries), strict=True)
        ]
        lines.append(f"| {title} | {size:,} | {100 * fmean(score or 0.0 for score in scores):.1f} |")
    return "\n".join(lines)


def show(title: str, text: str) -> None:
    """Print a table under its title."""
    print(f"**{title}**\n\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
