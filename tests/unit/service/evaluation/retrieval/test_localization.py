"""The protocol of localization: which pairs, which boxes, and means by hand; pictures by construction."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from whatwhere.indexer.backbones.backbone import Backbone
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box
from whatwhere.indexer.errors import BenchmarkUnreadable
from whatwhere.indexer.features.nmf import Factors, factorize, quantize
from whatwhere.service.evaluation.retrieval import localization
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark, BenchmarkQuery, Coverage, PixelBox
from whatwhere.service.evaluation.retrieval.localization import (
    METHODS,
    Localization,
    Method,
    QueryPicture,
    localize,
    localize_queries,
)
from whatwhere.service.search import searcher

WIDTH, HEIGHT = 160, 120  # pixels; a cell is 10 x 10 of them
THING = (5, 6)  # cells
UPPER_LEFT, LOWER_RIGHT = (0, 0), (7, 10)  # cells, top and left of a thing
UPPER_LEFT_BOX, LOWER_RIGHT_BOX = PixelBox(0, 0, 60, 50), PixelBox(100, 70, 160, 120)
CHANNELS = 100


def query(name: str, image: str, box: PixelBox | None = UPPER_LEFT_BOX, group: str = "tower") -> BenchmarkQuery:
    return BenchmarkQuery(name, image, group, box, {})


def benchmark(*queries: BenchmarkQuery) -> Benchmark:
    """Return a data set of these queries; its files are never opened."""
    files = {each.image: Path(each.image) for each in queries}
    coverage = Coverage(len(files), len(queries), None, None, 0, ())
    return Benchmark("towers", files, files, queries, ("all",), ("mAP",), coverage)


def activations(first: tuple[int, int], second: tuple[int, int]) -> Tensor:
    """Return a faint background and two things: each has a concept all over it and a channel for each of its cells."""
    height, width = THING
    grid = torch.zeros(HEIGHT // 10, WIDTH // 10, CHANNELS)
    grid[:, :, 80:] = torch.rand(20, generator=torch.Generator().manual_seed(1)) / 2
    for number, (top, left) in enumerate((first, second)):
        thing = torch.zeros(height * width, CHANNELS)
        thing[:, 40 * number : 40 * number + 10] = torch.linspace(1, 2, 10)
        thing[:, 40 * number + 10 : 40 * number + 40] = torch.eye(height * width)
        grid[top : top + height, left : left + width] = thing.reshape(height, width, CHANNELS)
    return grid


def picture(first: tuple[int, int] = UPPER_LEFT, second: tuple[int, int] = LOWER_RIGHT) -> QueryPicture:
    grid = activations(first, second)
    (factors,) = factorize([grid.flatten(0, 1)], 2)
    return QueryPicture(grid, grid, quantize(factors, *grid.shape[:2]), WIDTH, HEIGHT)


def blank() -> QueryPicture:
    """Return a picture without anything, for methods that look at none."""
    factors = quantize(Factors(torch.zeros(192, 2), torch.zeros(2, CHANNELS)), 12, 16)
    return QueryPicture(torch.zeros(12, 16, CHANNELS), torch.zeros(12, 16, CHANNELS), factors, WIDTH, HEIGHT)


class OnesEverywhere:
    """A network of stride 32 with four channels that are always 1."""

    def threads_beside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def activations(self, images: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        return [torch.ones(image.shape[0] // 32, image.shape[1] // 32, 4) for image in images]


def use(monkeypatch: pytest.MonkeyPatch, methods: Mapping[str, Method]) -> None:
    monkeypatch.setattr(localization, "METHODS", methods)


def test_the_whole_image_overlaps_by_the_area_of_the_box() -> None:
    """The boxes of the two pictures cover a quarter and a half: 0.375 in the mean."""
    queries = query("one", "a", PixelBox(0, 0, 80, 60)), query("two", "b", PixelBox(0, 0, 160, 60))

    found = localize(benchmark(*queries), {"a": blank(), "b": blank()})

    assert found is not None
    assert found.pairs == 2
    assert found.mean_iou["whole image"] == pytest.approx(0.375)


def test_the_overlap_is_that_with_the_other_picture_s_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """The left half against a left third is 2/3, against a lower half 1/3; who finds nothing scores 0."""
    use(monkeypatch, {"left half": lambda *_: Box(0, 0, 0.5, 1), "nothing": lambda *_: None})
    third, lower = PixelBox(0, 0, 160 / 3, 120), PixelBox(0, 60, 160, 120)

    found = localize(benchmark(query("one", "a", third), query("two", "b", lower)), {"a": blank(), "b": blank()})

    assert found == Localization(2, {"left half": pytest.approx((2 / 3 + 1 / 3) / 2), "nothing": 0.0})


def test_a_method_gets_the_query_its_box_and_the_picture_to_look_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """In both orders, the box in fractions of the query's own picture."""
    asked: list[tuple[QueryPicture, Box, QueryPicture]] = []
    use(monkeypatch, {"recorder": lambda *arguments: asked.append(arguments)})
    one, two = blank(), blank()
    queries = query("one", "a", PixelBox(0, 0, 80, 60)), query("two", "b", PixelBox(0, 60, 160, 120))

    localize(benchmark(*queries), {"a": one, "b": two})

    (first, second) = asked
    assert (first[0] is one, first[1], first[2] is two) == (True, Box(0, 0, 0.5, 0.5), True)
    assert (second[0] is two, second[1], second[2] is one) == (True, Box(0, 0.5, 1, 1), True)


def test_pairs_are_of_one_group_with_boxes_on_different_pictures() -> None:
    """Of three queries on two pictures four ordered pairs; another building and a query without box add none."""
    queries = (
        *(query("one", "a"), query("two", "a"), query("three", "b")),
        *(query("other", "c", group="bridge"), query("whole", "d", None)),
    )

    found = localize(benchmark(*queries), {"a": blank(), "b": blank()})

    assert found is not None
    assert found.pairs == 4


def test_without_pairs_there_is_no_answer() -> None:
    """One query a building: nothing to look for elsewhere."""
    found = localize(benchmark(query("one", "a"), query("two", "b", group="bridge")), {})

    assert found is None


@pytest.mark.parametrize(
    ("method", "least"),
    [("NMF stored", 0.6), ("NMF exact", 0.6), ("exhaustive windows", 0.999), ("AML", 0.999)],
)
def test_every_method_finds_a_thing_that_moved(method: str, least: float) -> None:
    """Two things swap their corners: windows box the asked one to the cell, NMF but for its threshold."""
    pictures = {"a": picture(UPPER_LEFT, LOWER_RIGHT), "b": picture(LOWER_RIGHT, UPPER_LEFT)}

    found = localize(benchmark(query("one", "a", UPPER_LEFT_BOX), query("two", "b", LOWER_RIGHT_BOX)), pictures)

    assert found is not None
    assert found.mean_iou[method] > least


def test_all_methods_are_reported() -> None:
    """Under the names of the table."""
    found = localize(benchmark(query("one", "a"), query("two", "b")), {"a": picture(), "b": picture()})

    assert found is not None
    assert list(found.mean_iou) == ["whole image", "NMF stored", "NMF exact", "exhaustive windows", "AML"]
    assert list(found.mean_iou) == list(METHODS)


def test_a_box_may_be_a_pixel_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ground truth is rounded; the box is cut to the picture."""
    use(monkeypatch, {"whole image": lambda *_: WHOLE_IMAGE})
    box = PixelBox(-1, 0, WIDTH + 1, HEIGHT + 1)

    found = localize(benchmark(query("one", "a", box), query("two", "b", box)), {"a": blank(), "b": blank()})

    assert found == Localization(2, {"whole image": pytest.approx(1)})


def test_a_box_beyond_the_picture_names_query_and_picture() -> None:
    """Pictures that were scaled down do not fit their boxes."""
    queries = query("one", "a", PixelBox(0, 0, 2 * WIDTH, HEIGHT)), query("two", "b")

    with pytest.raises(BenchmarkUnreadable, match=r"one: the box .* exceeds a, which has 160 x 120 pixels"):
        localize(benchmark(*queries), {"a": blank(), "b": blank()})


def test_progress_counts_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each pair: how many are done, of how many."""
    use(monkeypatch, {"nothing": lambda *_: None})
    told: list[tuple[int, int]] = []

    localize(
        benchmark(query("one", "a"), query("two", "b")),
        {"a": blank(), "b": blank()},
        lambda done, total: told.append((done, total)),
    )

    assert told == [(1, 2), (2, 2)]


def test_new_activations_are_as_large_as_the_server_s() -> None:
    """What is measured is what is served."""
    assert localization.EXACT_SHORTER_SIDE == searcher.EXACT_SHORTER_SIDE


def test_a_query_s_picture_is_described_at_both_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 640 x 480 pixels: at shorter sides of 512 and 224, cells of 32 pixels, factors of the larger one."""
    asked: list[QueryPicture] = []
    use(monkeypatch, {"recorder": lambda asking, _, __: asked.append(asking)})
    for name in ("a", "b"):
        Image.new("RGB", (640, 480)).save(tmp_path / name, "PNG")
    queries = benchmark(query("one", str(tmp_path / "a")), query("two", str(tmp_path / "b")))

    localize_queries(queries, cast(Backbone, OnesEverywhere()), rank=3)

    found = asked[0]
    assert (found.width, found.height) == (640, 480)
    assert found.activations.shape == (16, 21, 4)
    assert found.small_activations.shape == (7, 9, 4)
    assert (found.factors.height, found.factors.width, found.factors.what.shape) == (16, 21, (3, 4))
