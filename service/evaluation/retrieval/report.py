"""Report an evaluation as Markdown, as JSON and as a picture."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.evaluation.retrieval.published import published_iou, published_scores
from whatwhere.service.evaluation.retrieval.run import Evaluation, MethodScore

TITLES: Mapping[str, str] = {
    "mac": "MAC",
    "r-mac": "R-MAC",
    "crow": "CroW",
    "gem": "GeM",
    "what": "NMF V (what)",
    "what-and-where": "NMF V+U (what-and-where)",
    "fused": "fused",
}


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return all numbers, including each query's score: scores in [0, 1], published ones in percent."""
    coverage = evaluation.benchmark.coverage
    localization = evaluation.localization
    return {
        "benchmark": evaluation.benchmark.name,
        "coverage": asdict(coverage) | {"is_subset": coverage.is_subset, "sentence": coverage.sentence},
        "settings": dict(evaluation.settings),
        "scores": [asdict(score) for score in evaluation.methods],
        "localization": None if localization is None else asdict(localization),
        "bytes_per_image": dict(evaluation.bytes_per_image),
        "published": {
            "mean_average_precision_percent": published_scores(evaluation.benchmark.name),
            "mean_iou_percent": dict(published_iou(evaluation.benchmark.name)),
        },
    }


def to_markdown(evaluation: Evaluation) -> str:
    """Return the report: coverage of the data set, the table of scores, localization, published numbers."""
    used = evaluation.settings
    sections = [
        f"## {evaluation.benchmark.name}",
        f"{evaluation.benchmark.coverage.sentence[:1].upper()}{evaluation.benchmark.coverage.sentence[1:]}.",
        f"{used['backbone']}, layer {used['layer']}, {used['precision']}; preset {used['preset']}, rank "
        f"{used['rank']}, {_lengths(used['dimensions'])} dimensions, whitened on {_listed(used['whitened_on'])}. In "
        f"percent: single pass / after expansion by the first {used['expansion']}; the best in bold. Bytes per image "
        "are those that region queries of stored images need.",
        _score_table(evaluation),
    ]
    if evaluation.localization is not None:
        sections += [
            f"Localization, mean IoU in percent over {evaluation.localization.pairs} ordered pairs of queries:",
            _table(
                ("method", "IoU"),
                ((name, f"{100 * value:.1f}") for name, value in evaluation.localization.mean_iou.items()),
            ),
        ]
    sections += _published_sections(evaluation.benchmark.name)
    left_out = evaluation.benchmark.coverage.left_out
    reasons = sorted({f"{entry.query}: {entry.reason}" for entry in left_out if entry.reason.startswith("only")})
    if reasons:
        sections.append("Left out: " + "; ".join(reasons) + ".")
    return "\n\n".join(sections) + "\n"


def _score_table(evaluation: Evaluation) -> str:
    columns = [(reading, name) for reading in evaluation.benchmark.readings for name in evaluation.benchmark.metrics]
    pairs = _pairs(evaluation.methods)
    cells = best_in_bold(
        {name: [[_value(score, column) for score in pair] for column in columns] for name, pair in pairs.items()}
    )
    rows = ((TITLES[name], *cells[name], f"{evaluation.bytes_per_image[name]:,}") for name in pairs)
    headings = [
        metric if len(evaluation.benchmark.readings) == 1 else f"{metric}, {reading}" for reading, metric in columns
    ]
    return _table(("descriptor", *headings, "bytes per image"), rows)


def best_in_bold(rows: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[str]]:
    """Return the cells of a table, name → columns, from their values in percent (single pass, expanded).

    The best single-pass value and the best expanded value of each column are bold. Values are compared as printed, so
    that equal ones are equally bold.
    """
    best = [[max(values) for values in zip(*column, strict=True)] for column in zip(*rows.values(), strict=True)]
    return {name: [_cell(*pair) for pair in zip(columns, best, strict=True)] for name, columns in rows.items()}


def _cell(values: Sequence[float], best: Sequence[float]) -> str:
    texts = [
        f"**{_percent(value)}**" if value >= highest else _percent(value)
        for value, highest in zip(values, best, strict=True)
    ]
    return " / ".join(texts)


def _pairs(scores: Iterable[MethodScore]) -> dict[str, list[MethodScore]]:
    """Return each descriptor's scores, single pass first."""
    pairs: dict[str, list[MethodScore]] = {}
    for score in scores:
        pairs.setdefault(score.descriptor, []).append(score)
    return pairs


def _value(score: MethodScore, column: tuple[str, str]) -> float:
    reading, metric = column
    # rounded as printed, so that equal numbers are equally bold
    return round(100 * score.means[reading][metric], 1) if reading in score.means else float("nan")


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"  # NaN: no query has a positive


def _published_sections(benchmark: str) -> list[str]:
    scores = published_scores(benchmark)
    if not scores:
        return []
    names = list(next(iter(scores.values())))
    rows = ((TITLES[name], *(_pair_text(scores[network][name]) for network in scores)) for name in names)
    return [
        f"Published for the complete {benchmark}, mAP single pass / after expansion:",
        _table(("descriptor", *scores), rows),
        "Published localization, mean IoU:",
        _table(("method", "IoU"), ((name, f"{value:.1f}") for name, value in published_iou(benchmark).items())),
    ]


def _pair_text(pair: tuple[float, float | None]) -> str:
    return " / ".join("–" if value is None else f"{value:.1f}" for value in pair)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _lengths(dimensions: object) -> str:
    """Return the range of the whitened vectors' dimensions; few training photographs give fewer dimensions."""
    assert isinstance(dimensions, Mapping)
    shortest, longest = min(dimensions.values()), max(dimensions.values())
    return f"{longest}" if shortest == longest else f"{shortest} to {longest}"


def _listed(value: object) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


# --- the picture --------------------------------------------------------------------------------------------------

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_WIDTH, _ROW, _LEFT, _RIGHT, _TOP = 900, 46, 250, 70, 64
_SINGLE_COLOR, _EXPANDED_COLOR, _INK = (
    "#0072b2",
    "#e69f00",
    "#222222",
)  # Okabe and Ito: distinct also for color-blind readers


def check_picture_name(path: Path) -> None:
    """Raise InvalidRequest if the file extension is not that of a supported format."""
    if path.suffix.lower() not in _FORMATS:
        raise InvalidRequest(f"{path}: unsupported format, use {', '.join(_FORMATS)}", field="picture")


def format_of(path: Path) -> str:
    """Return the format of a picture, by the file extension."""
    return _FORMATS[path.suffix.lower()]


def draw(evaluation: Evaluation) -> Image.Image:
    """Draw the main metric of the last reading as bars, single pass and expanded."""
    reading, metric = evaluation.benchmark.readings[-1], evaluation.benchmark.metrics[0]
    pairs = _pairs(evaluation.methods)
    picture = Image.new("RGB", (_WIDTH, _TOP + _ROW * len(pairs) + 16), "white")
    pen = ImageDraw.Draw(picture)
    values = {name: [_value(score, (reading, metric)) for score in pair] for name, pair in pairs.items()}
    known = [value for pair in values.values() for value in pair if not math.isnan(value)]
    lowest = max(0.0, min(known, default=0.0) // 10 * 10 - 10)
    scale = (_WIDTH - _LEFT - _RIGHT) / (100 - lowest)
    part = " (a part of it)" if evaluation.benchmark.coverage.is_subset else ""
    heading = f"{evaluation.benchmark.name}{part}: {metric}, {reading}, in percent from {lowest:.0f} to 100"
    pen.text((16, 10), heading, _INK, font=_font(18))
    for place, (label, color) in enumerate((("single pass", _SINGLE_COLOR), ("expanded", _EXPANDED_COLOR))):
        left = _LEFT + 140 * place
        pen.rectangle((left, 40, left + 12, 52), color)
        pen.text((left + 18, 37), label, _INK, font=_font(14))
    for number, (name, pair) in enumerate(values.items()):
        top = _TOP + _ROW * number
        pen.text((16, top + 9), TITLES[name], _INK, font=_font(16))
        for place, (value, color) in enumerate(zip(pair, (_SINGLE_COLOR, _EXPANDED_COLOR), strict=True)):
            upper = top + 2 + 19 * place
            right = _LEFT + (0.0 if math.isnan(value) else value - lowest) * scale
            if right > _LEFT:
                pen.rectangle((_LEFT, upper, right, upper + 16), color)
            pen.text((right + 6, upper - 1), _percent(value), _INK, font=_font(14))
    return picture


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
