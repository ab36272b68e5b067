"""Reports of evaluations written by hand: every number where it belongs."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.evaluation.retrieval.benchmark import Benchmark, Coverage, LeftOut
from whatwhere.service.evaluation.retrieval.localization import Localization
from whatwhere.service.evaluation.retrieval.published import published_iou, published_scores
from whatwhere.service.evaluation.retrieval.report import (
    TITLES,
    check_picture_name,
    draw,
    format_of,
    to_json,
    to_markdown,
)
from whatwhere.service.evaluation.retrieval.run import TABLE_ORDER, Evaluation, MethodScore

SETTINGS: Mapping[str, object] = {
    "backbone": "some-net",
    "layer": "head",
    "weights_sha256": "0" * 64,
    "precision": "float32",
    "preset": "default",
    "rank": 8,
    "dimensions": {"mac": 256, "cells": 512},
    "whitened_on": ["oxford", "varied"],
    "expansion": 5,
    "libraries": {"whatwhere": "0.1"},
}


def benchmark(name: str = "towers", readings: tuple[str, ...] = ("all",), **coverage: Any) -> Benchmark:
    counts = Coverage(5, 2, None, None, 0, ())
    return Benchmark(name, {}, {}, (), readings, ("mAP", "mP@1"), replace(counts, **coverage))


def score(descriptor: str, expansion: int, average: float, first: float = 0.5, reading: str = "all") -> MethodScore:
    return MethodScore(
        descriptor, expansion, {reading: {"mAP": average, "mP@1": first}}, {reading: {"one": average, "two": average}}
    )


def evaluation(*scores: MethodScore, **changes: Any) -> Evaluation:
    methods = scores or (
        *(score("mac", 0, 0.6), score("mac", 5, 0.8)),
        *(score("what", 0, 0.7), score("what", 5, 0.75)),
    )
    sizes = {each.descriptor: 12345 for each in methods}
    return replace(Evaluation(benchmark(), SETTINGS, methods, None, sizes), **changes)


def rows(markdown: str) -> dict[str, list[str]]:
    """Return the lines of all tables: first cell → the others."""
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return {first: others for first, *others in lines}


# --- Markdown -----------------------------------------------------------------------------------------------------


def test_a_row_holds_each_metric_single_and_expanded_and_the_bytes() -> None:
    """In percent, to a tenth, the best of each pass in bold."""
    table = rows(
        to_markdown(
            evaluation(
                *(score("mac", 0, 0.61249, 0.25), score("mac", 5, 0.8, 1.0)),
                *(score("what", 0, 0.7, 0.5), score("what", 5, 0.75, 0.0)),
            )
        )
    )

    assert table["descriptor"] == ["mAP", "mP@1", "bytes per image"]
    assert table["---"] == ["---:", "---:", "---:"]
    assert table["MAC"] == ["61.2 / **80.0**", "25.0 / **100.0**", "12,345"]
    assert table["NMF V (what)"] == ["**70.0** / 75.0", "**50.0** / 0.0", "12,345"]


def test_numbers_that_look_equal_are_equally_bold() -> None:
    """70.04 and 69.96 are both printed as 70.0."""
    table = rows(
        to_markdown(
            evaluation(
                *(score("mac", 0, 0.7004), score("mac", 5, 0.9)),
                *(score("what", 0, 0.6996), score("what", 5, 0.9)),
                *(score("gem", 0, 0.6994), score("gem", 5, 0.8994)),
            )
        )
    )

    assert [table[name][0] for name in ("MAC", "NMF V (what)", "GeM")] == [
        "**70.0** / **90.0**",
        "**70.0** / **90.0**",
        "69.9 / 89.9",
    ]


def test_each_reading_has_columns_of_its_own() -> None:
    """The best is that of the reading; one without any query has dashes, none of them bold."""
    pair = (score("mac", 0, 0.6, reading="easy"), score("mac", 5, 0.8, reading="easy"))

    table = rows(to_markdown(evaluation(*pair, benchmark=benchmark(readings=("easy", "hard")))))

    assert table["descriptor"] == ["mAP, easy", "mP@1, easy", "mAP, hard", "mP@1, hard", "bytes per image"]
    assert table["MAC"] == ["**60.0** / **80.0**", "**50.0** / **50.0**", "– / –", "– / –", "12,345"]


def test_every_descriptor_has_a_title() -> None:
    """A report of all of them can be written."""
    pairs = [score(name, expansion, 0.5) for name in TABLE_ORDER for expansion in (0, 5)]

    table = rows(to_markdown(evaluation(*pairs)))

    assert [name for name in table if name in TITLES.values()] == [
        *("MAC", "R-MAC", "CroW", "GeM"),
        *("NMF V (what)", "NMF V+U (what-and-where)", "fused"),
    ]


def test_a_subset_says_so() -> None:
    """In the first sentence, with the advice not to compare."""
    part = benchmark(official_image_count=9, official_query_count=2, distractor_count=3)

    lines = to_markdown(evaluation(benchmark=part)).splitlines()

    assert lines[0] == "## towers"
    assert lines[2] == (
        "All 2 queries over 5 of 9 images and 3 distractors: "
        "a subset, compare its numbers only with others of the same subset."
    )


def test_a_whole_set_says_so_too() -> None:
    """Without the advice."""
    whole = benchmark(official_image_count=5, official_query_count=2)

    assert to_markdown(evaluation(benchmark=whole)).splitlines()[2] == "All 2 queries over all 5 images."


def test_the_settings_are_told_in_a_sentence() -> None:
    """What decides the numbers, and what is whitened on."""
    line = to_markdown(evaluation()).splitlines()[4]

    assert line.startswith(
        "some-net, layer head, float32; preset default, rank 8, 256 to 512 dimensions, whitened on oxford and varied. "
        "In percent: single pass / after expansion by the first 5; the best in bold."
    )


@pytest.mark.parametrize("whitened_on", ["the ready-made whiteners", "the searched collection"])
def test_whiteners_of_one_length_are_told_by_one_number(whitened_on: str) -> None:
    """And by what they are made on."""
    told = dict(SETTINGS) | {"dimensions": {"mac": 7, "what": 7}, "whitened_on": whitened_on}

    assert f"rank 8, 7 dimensions, whitened on {whitened_on}. In" in to_markdown(evaluation(settings=told))


def test_queries_that_hardly_anything_is_there_of_are_named() -> None:
    """Those whose picture is not there are counted in the first sentence."""
    entries = (
        LeftOut("triomphe_5", "original", "only 3 of its 281 positives were found"),
        LeftOut("triomphe_5", "query excluded", "only 2 of its 280 positives were found"),
        LeftOut("eiffel_1", None, "its picture paris_eiffel_000128 was not found"),
        LeftOut("louvre_1", "original", "none of its positives was found"),
    )

    text = to_markdown(evaluation(benchmark=benchmark(left_out=entries)))

    assert text.splitlines()[-1] == (
        "Left out: triomphe_5: only 2 of its 280 positives were found; "
        "triomphe_5: only 3 of its 281 positives were found."
    )
    assert "eiffel" not in text


def test_localization_has_a_table_of_its_own() -> None:
    """Where there is one, with the number of pairs."""
    found = Localization(16, {"whole image": 0.3321, "NMF stored": 0.548})

    text = to_markdown(evaluation(localization=found))

    assert "mean IoU in percent over 16 ordered pairs" in text
    assert (rows(text)["whole image"], rows(text)["NMF stored"]) == (["33.2"], ["54.8"])
    assert "IoU" not in to_markdown(evaluation())


# --- the published numbers ----------------------------------------------------------------------------------------

# descriptor → Oxford5k and Paris6k with VGG-16, then with ResNet-50: a single pass, then after expansion
SINGLE = {
    "mac": (55.7, 68, 57.2, 69.9),
    "r-mac": (67.8, 77.4, 71, 81.4),
    "crow": (65.4, 74.3, 63.3, 71.7),
    "what": (71.9, 81.3, 67.7, 77.5),
    "what-and-where": (73.4, 83, 74.8, 83.2),
}
EXPANDED = {
    "r-mac": (72.1, 82.4, 77.5, 85.5),
    "crow": (68.5, 77.1, 68, 76.4),
    "what": (73.8, 82.3, 69.2, 81.4),
    "what-and-where": (74.2, 83.8, 78.8, 86.2),
}
OVERLAPS = {
    "AML": (51.3, 51.4),
    "exhaustive windows": (52.6, 52.9),
    "NMF, VGG-16": (49.3, 67.6),
    "NMF, ResNet-50": (53.2, 68.7),
}


@pytest.mark.parametrize(("name", "column"), [("oxford5k", 0), ("paris6k", 1)])
def test_published_numbers_are_those_of_the_thesis(name: str, column: int) -> None:
    """Its tables 5.1 and 5.2, typed in a second time."""
    expected = {
        network: {
            descriptor: (values[place], EXPANDED[descriptor][place] if descriptor in EXPANDED else None)
            for descriptor, values in SINGLE.items()
        }
        for network, place in (("VGG-16", column), ("ResNet-50", 2 + column))
    }

    assert published_scores(name) == expected
    assert published_iou(name) == {method: values[column] for method, values in OVERLAPS.items()}


def test_published_numbers_stand_below_the_run_s() -> None:
    """For Paris6k, in two tables, dashes where nothing was published."""
    text = to_markdown(evaluation(score("gem", 0, 0.6), score("gem", 5, 0.8), benchmark=benchmark("paris6k")))

    table = rows(text.partition("Published for the complete paris6k")[2])
    assert table["MAC"] == ["68.0 / –", "69.9 / –"]
    assert table["NMF V+U (what-and-where)"] == ["83.0 / 83.8", "83.2 / 86.2"]
    assert (table["AML"], table["NMF, ResNet-50"]) == (["51.4"], ["68.7"])


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k", "voc2010", "folders"])
def test_other_sets_have_no_published_numbers(name: str) -> None:
    """The thesis measured on the two original ones."""
    assert (published_scores(name), published_iou(name)) == ({}, {})
    assert "Published" not in to_markdown(evaluation(benchmark=benchmark(name)))


# --- JSON ---------------------------------------------------------------------------------------------------------


def test_json_holds_everything() -> None:
    """Scores as they are, of each query too; what is missing, the settings, the published numbers."""
    left_out = (LeftOut("triomphe_5", "all", "only 3 of its 281 positives were found"),)
    made = evaluation(
        *(score("mac", 0, 0.61249), score("mac", 5, 0.8)),
        benchmark=benchmark("oxford5k", official_image_count=9, left_out=left_out),
        localization=Localization(2, {"whole image": 0.25}),
    )

    read = json.loads(json.dumps(to_json(made), allow_nan=False))

    assert read["benchmark"] == "oxford5k"
    assert read["coverage"] == {
        "image_count": 5,
        "query_count": 2,
        "official_image_count": 9,
        "official_query_count": None,
        "distractor_count": 0,
        "left_out": [{"query": "triomphe_5", "reading": "all", "reason": "only 3 of its 281 positives were found"}],
        "is_subset": True,
        "sentence": ("2 queries over 5 of 9 images: a subset, compare its numbers only with others of the same subset"),
    }
    assert read["settings"] == SETTINGS
    assert read["scores"][0] == {
        "descriptor": "mac",
        "expansion": 0,
        "means": {"all": {"mAP": 0.61249, "mP@1": 0.5}},
        "queries": {"all": {"one": 0.61249, "two": 0.61249}},
    }
    assert [entry["expansion"] for entry in read["scores"]] == [0, 5]
    assert read["localization"] == {"pairs": 2, "mean_iou": {"whole image": 0.25}}
    assert read["bytes_per_image"] == {"mac": 12345}
    assert read["published"]["mean_average_precision_percent"]["VGG-16"]["r-mac"] == [67.8, 72.1]
    assert read["published"]["mean_iou_percent"]["AML"] == 51.3
    assert read.keys() == {
        *("benchmark", "coverage", "settings", "scores", "localization", "bytes_per_image", "published"),
    }


def test_a_reading_without_any_query_is_absent_from_json() -> None:
    """Nothing stands for it: NaN is no JSON."""
    pair = (score("mac", 0, 0.6, reading="easy"), score("mac", 5, 0.8, reading="easy"))

    read = to_json(evaluation(*pair, benchmark=benchmark(readings=("easy", "hard"))))

    json.dumps(read, allow_nan=False)
    assert read["localization"] is None
    assert read["scores"][0]["means"].keys() == {"easy"}


# --- the picture --------------------------------------------------------------------------------------------------

BLUE, ORANGE = (0, 114, 178), (230, 159, 0)
AXIS = 580  # pixels from the lowest value to 100
FIRST_BAR, SECOND_BAR, ROW = 74, 93, 46  # in the middle of the first descriptor's bars; from one row to the next


def bar(pixels: NDArray[np.uint8], line: int, color: tuple[int, int, int]) -> int:
    """Return how many pixels of a line have the colour."""
    return int((pixels[line] == color).all(axis=1).sum())


def drawn(made: Evaluation, path: Path) -> NDArray[np.uint8]:
    draw(made).save(path)
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def test_bars_are_as_long_as_their_values(tmp_path: Path) -> None:
    """The smallest value is 60, so the axis goes from 50 to 100; a pixel more for the edge."""
    pixels = drawn(evaluation(), tmp_path / "scores.png")

    assert pixels.shape == (64 + 2 * ROW + 16, 900, 3)
    assert bar(pixels, FIRST_BAR, BLUE) == pytest.approx(AXIS * (60 - 50) / 50, abs=1)
    assert bar(pixels, SECOND_BAR, ORANGE) == pytest.approx(AXIS * (80 - 50) / 50, abs=1)
    assert bar(pixels, FIRST_BAR + ROW, BLUE) == pytest.approx(AXIS * (70 - 50) / 50, abs=1)
    assert bar(pixels, SECOND_BAR + ROW, ORANGE) == pytest.approx(AXIS * (75 - 50) / 50, abs=1)


@pytest.mark.parametrize(("value", "length"), [(0.0, 0), (0.05, AXIS * 0.05), (0.15, AXIS * 0.15), (1.0, AXIS)])
def test_the_axis_never_starts_below_zero(tmp_path: Path, value: float, length: float) -> None:
    """From 0 where the smallest value is below 20, from 90 where all are 100."""
    pixels = drawn(evaluation(score("mac", 0, value), score("mac", 5, value)), tmp_path / "scores.png")

    assert bar(pixels, FIRST_BAR, BLUE) == pytest.approx(length, abs=1)


def test_the_last_reading_s_main_metric_is_drawn(tmp_path: Path) -> None:
    """Of a set with several readings."""
    means = {"easy": {"mAP": 0.9, "mP@1": 0.1}, "hard": {"mAP": 0.6, "mP@1": 0.2}}
    pair = [MethodScore("mac", expansion, means, {}) for expansion in (0, 5)]

    pixels = drawn(evaluation(*pair, benchmark=benchmark(readings=("easy", "hard"))), tmp_path / "scores.png")

    assert bar(pixels, FIRST_BAR, BLUE) == pytest.approx(AXIS * (60 - 50) / 50, abs=1)


def test_a_reading_without_any_query_has_no_bars(tmp_path: Path) -> None:
    """But a picture."""
    pair = (score("mac", 0, 0.6, reading="easy"), score("mac", 5, 0.8, reading="easy"))

    pixels = drawn(evaluation(*pair, benchmark=benchmark(readings=("easy", "hard"))), tmp_path / "scores.png")

    assert bar(pixels, FIRST_BAR, BLUE) == bar(pixels, SECOND_BAR, ORANGE) == 0


@pytest.mark.parametrize(
    ("name", "form"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a b.PNG", "PNG")]
)
def test_the_suffix_decides_the_form(tmp_path: Path, name: str, form: str) -> None:
    """PNG or JPEG; nothing else is left in the folder."""
    check_picture_name(tmp_path / name)

    draw(evaluation()).save(tmp_path / name, format=format_of(Path(name)))

    with Image.open(tmp_path / name) as picture:
        assert picture.format == form
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["scores.svg", "scores", "png"])
def test_another_suffix_is_refused(name: str) -> None:
    """With those that there are."""
    with pytest.raises(InvalidRequest, match=rf"{name}: unsupported format, use \.png, \.jpg, \.jpeg") as caught:
        check_picture_name(Path("some") / name)

    assert caught.value.field == "picture"
