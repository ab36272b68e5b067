"""Define the form of every data set: pictures, queries, and the positives and junk of each query."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from whatwhere.indexer.boxes import Box, box_from_pixels
from whatwhere.indexer.errors import BenchmarkUnreadable, InvalidRegion

MINIMUM_SHARE = 0.05  # of a query's positives that must be present: a score over 3 of 281 is meaningless


class PixelBox(NamedTuple):
    """Hold a box in pixels of the upright picture, from the upper left corner: x to the right, y down."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def area(self) -> float:
        """Return the area in square pixels."""
        return (self.x_max - self.x_min) * (self.y_max - self.y_min)


@dataclass(frozen=True)
class Judgment:
    """Hold the positives of one query in one reading; `junk` is ignored in the ranking."""

    positives: frozenset[str]
    junk: frozenset[str]


@dataclass(frozen=True)
class BenchmarkQuery:
    """Hold one query: `image` is a name in `Benchmark.query_images`, `group` the building or class it shows.

    A `box` of None means the whole picture. If `judgments` lacks a reading, the query has no positives in it and is
    left out of its mean.
    """

    name: str
    image: str
    group: str
    box: PixelBox | None
    judgments: Mapping[str, Judgment]

    def region(self, width: int, height: int) -> Box | None:
        """Return the box in fractions of a picture of this upright size in pixels, None for the whole picture.

        Raises BenchmarkUnreadable if the box exceeds the picture.
        """
        if self.box is None:
            return None
        try:
            return box_from_pixels(*self.box, width=width, height=height)
        except InvalidRegion as error:
            raise BenchmarkUnreadable(
                f"{self.name}: the box {list(self.box)} exceeds {self.image}, which has {width} x {height} pixels; "
                "use the pictures in their original size"
            ) from error


@dataclass(frozen=True)
class LeftOut:
    """Record why a query is not scored, in one reading or (None) in all."""

    query: str
    reading: str | None
    reason: str


@dataclass(frozen=True)
class Coverage:
    """Count the present part of a data set. Official counts are None for a user's data set."""

    image_count: int
    query_count: int
    official_image_count: int | None
    official_query_count: int | None
    distractor_count: int
    left_out: tuple[LeftOut, ...]

    @property
    def is_subset(self) -> bool:
        """Return whether images or queries are missing: then numbers do not compare with published ones."""
        pairs = ((self.image_count, self.official_image_count), (self.query_count, self.official_query_count))
        return any(official is not None and found < official for found, official in pairs)

    @property
    def sentence(self) -> str:
        """Return the sentence of a report, without its period."""
        images = _share(self.image_count, self.official_image_count, "images")
        queries = _share(self.query_count, self.official_query_count, "queries")
        further = f" and {self.distractor_count} distractors" if self.distractor_count else ""
        caution = ": a subset, compare its numbers only with others of the same subset" if self.is_subset else ""
        return f"{queries} over {images}{further}{caution}"


@dataclass(frozen=True)
class Protocol:
    """Define a data set's protocol; `metrics` are names in `metrics.METRICS`, the main one first.

    If `instances`, the queries of a group show the same object, else objects of one class.
    """

    name: str
    readings: tuple[str, ...]
    metrics: tuple[str, ...]
    image_count: int | None = None
    query_count: int | None = None
    instances: bool = False


@dataclass(frozen=True)
class Benchmark:
    """Hold a data set: `images` are searched, `query_images` are the queries' pictures, both from name to file.

    A query picture that is also searched has the same name in both.
    """

    name: str
    images: Mapping[str, Path]
    query_images: Mapping[str, Path]
    queries: tuple[BenchmarkQuery, ...]
    readings: tuple[str, ...]
    metrics: tuple[str, ...]
    coverage: Coverage
    instances: bool = False


@dataclass(frozen=True)
class Pictures:
    """Hold the files that a reader found. Distractors are among `images` and in no official list."""

    images: Mapping[str, Path]
    query_images: Mapping[str, Path]
    distractor_count: int = 0


def assemble(
    protocol: Protocol, pictures: Pictures, queries: Iterable[BenchmarkQuery], left_out: Sequence[LeftOut] = ()
) -> Benchmark:
    """Assemble a data set from the ground truth and the files that were found.

    A query without its picture is left out, and missing pictures are dropped from the lists of the queries. A query is
    left out of a reading if none of its positives is left, as in revisitop, or fewer than 5 %. Raises
    BenchmarkUnreadable if no query is left.
    """
    asked: list[BenchmarkQuery] = []
    dropped = list(left_out)
    for query in queries:
        if query.image not in pictures.query_images:
            dropped.append(LeftOut(query.name, None, f"its picture {query.image} was not found"))
            continue
        found = _judgments_of(query, pictures.images.keys())
        dropped += [
            LeftOut(query.name, reading, _what_is_missing(query, reading, pictures.images.keys()))
            for reading in protocol.readings
            if reading not in found
        ]
        if found:
            asked.append(replace(query, judgments=found))
    if not asked:
        raise BenchmarkUnreadable(_nothing_to_ask(protocol, dropped))
    coverage = Coverage(
        len(pictures.images) - pictures.distractor_count,
        len(asked),
        protocol.image_count,
        protocol.query_count,
        pictures.distractor_count,
        tuple(dropped),
    )
    return Benchmark(
        protocol.name,
        pictures.images,
        {query.image: pictures.query_images[query.image] for query in asked},
        tuple(asked),
        protocol.readings,
        protocol.metrics,
        coverage,
        protocol.instances,
    )


def pixel_box(sides: Sequence[object], where: str) -> PixelBox:
    """Return x_min, y_min, x_max, y_max as a box. Raises BenchmarkUnreadable unless finite and with an area."""
    try:
        box = PixelBox(*(float(side) for side in sides))  # type: ignore[arg-type]  # another type raises TypeError
    except (TypeError, ValueError, OverflowError) as error:
        raise BenchmarkUnreadable(
            f"{where}: the box {list(sides)} is not four numbers; fetch the file again"
        ) from error
    if not all(map(math.isfinite, box)) or box.x_max <= box.x_min or box.y_max <= box.y_min:
        raise BenchmarkUnreadable(
            f"{where}: the box {list(box)} has no area; it is x_min, y_min, x_max, y_max in pixels"
        )
    return box


def _judgments_of(query: BenchmarkQuery, images: Set[str]) -> dict[str, Judgment]:
    """Return the judgments of the found images, without readings that have too few positives left."""
    found = {
        reading: Judgment(judgment.positives & images, judgment.junk & images)
        for reading, judgment in query.judgments.items()
    }
    return {
        reading: judgment
        for reading, judgment in found.items()
        if judgment.positives and len(judgment.positives) >= MINIMUM_SHARE * len(query.judgments[reading].positives)
    }


def _what_is_missing(query: BenchmarkQuery, reading: str, images: Set[str]) -> str:
    judgment = query.judgments.get(reading)
    found = judgment.positives & images if judgment else ()
    if not judgment or not found:
        return "none of its positives was found"
    return f"only {len(found)} of its {len(judgment.positives)} positives were found"


def _nothing_to_ask(protocol: Protocol, dropped: Sequence[LeftOut]) -> str:
    example = f" ({dropped[0].query}: {dropped[0].reason})" if dropped else ""
    return f"{protocol.name}: no query is left{example}; check that the images are those of the ground truth"


def _share(found: int, official: int | None, noun: str) -> str:
    if official is None or found > official:
        return f"{found} {noun}"
    return f"all {found} {noun}" if found == official else f"{found} of {official} {noun}"
