"""The form that every data set is read into: pictures, queries, and what each query should and need not find."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from whatwhere.indexer.boxes import Box, box_from_pixels
from whatwhere.indexer.errors import BenchmarkUnreadable, InvalidRegion

MINIMUM_SHARE = 0.05  # of a query's positives that must be there: the score of three out of 281 says nothing


class PixelBox(NamedTuple):
    """A box in pixels of the upright picture, from the upper left corner: x to the right, y down."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def area(self) -> float:
        """The covered pixels."""
        return (self.x_max - self.x_min) * (self.y_max - self.y_min)


@dataclass(frozen=True)
class Judgement:
    """What one query should find in one reading; `junk` counts neither for nor against."""

    positives: frozenset[str]
    junk: frozenset[str]


@dataclass(frozen=True)
class BenchmarkQuery:
    """One query: `image` is a name in `Benchmark.query_images`, `group` the building or class that it asks for.

    `box` is None where the whole picture is meant. A reading that `judgements` lacks has no positives for this query,
    which is left out of that reading's mean.
    """

    name: str
    image: str
    group: str
    box: PixelBox | None
    judgements: Mapping[str, Judgement]

    def region(self, width: int, height: int) -> Box | None:
        """Return the box on a picture of this upright size; BenchmarkUnreadable when it leaves the picture."""
        if self.box is None:
            return None
        try:
            return box_from_pixels(*self.box, width=width, height=height)
        except InvalidRegion as error:
            raise BenchmarkUnreadable(
                f"{self.name}: the box {list(self.box)} leaves {self.image}, which has {width} x {height} pixels; "
                "give the pictures in their original size"
            ) from error


@dataclass(frozen=True)
class LeftOut:
    """A query that is not asked, in one reading or (None) in all."""

    query: str
    reading: str | None
    reason: str


@dataclass(frozen=True)
class Coverage:
    """How much of a data set is there. Official counts are None where the set is the user's own, without any."""

    image_count: int
    query_count: int
    official_image_count: int | None
    official_query_count: int | None
    distractor_count: int
    left_out: tuple[LeftOut, ...]

    @property
    def is_subset(self) -> bool:
        """Whether images or queries are missing, so that numbers do not compare with published ones."""
        pairs = ((self.image_count, self.official_image_count), (self.query_count, self.official_query_count))
        return any(official is not None and found < official for found, official in pairs)

    @property
    def sentence(self) -> str:
        """What a report says of it."""
        images = _share(self.image_count, self.official_image_count, "images")
        queries = _share(self.query_count, self.official_query_count, "queries")
        further = f" and {self.distractor_count} distractors" if self.distractor_count else ""
        caution = ": a subset, compare its numbers only with others of the same subset" if self.is_subset else ""
        return f"{queries} over {images}{further}{caution}"


@dataclass(frozen=True)
class Protocol:
    """What a data set's protocol fixes; `metrics` are names in `metrics.METRICS`, the main one first.

    The queries of one group show the same thing where the set is of `instances`, else things of one kind.
    """

    name: str
    readings: tuple[str, ...]
    metrics: tuple[str, ...]
    image_count: int | None = None
    query_count: int | None = None
    instances: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A data set: `images` are searched, `query_images` holds every query's picture, both from name to file.

    A picture that is a query and is searched too has the same name in both.
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
    """The files that a reader found: `distractors` are among `images` and belong to no official list."""

    images: Mapping[str, Path]
    query_images: Mapping[str, Path]
    distractor_count: int = 0


def assemble(
    protocol: Protocol, pictures: Pictures, queries: Iterable[BenchmarkQuery], left_out: Sequence[LeftOut] = ()
) -> Benchmark:
    """Put a data set together from what was read and what was found.

    A query whose picture is absent is left out. So is what is absent from the list of a query, and a query from a
    reading for which no positive is left, as revisitop does, or fewer than one of twenty. Raises BenchmarkUnreadable
    when no query is left.
    """
    asked: list[BenchmarkQuery] = []
    dropped = list(left_out)
    for query in queries:
        if query.image not in pictures.query_images:
            dropped.append(LeftOut(query.name, None, f"its picture {query.image} was not found"))
            continue
        found = _judgements_of(query, pictures.images.keys())
        dropped += [
            LeftOut(query.name, reading, _what_is_missing(query, reading, pictures.images.keys()))
            for reading in protocol.readings
            if reading not in found
        ]
        if found:
            asked.append(replace(query, judgements=found))
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
    """Return x_min, y_min, x_max, y_max as a box; BenchmarkUnreadable unless four finite numbers with area."""
    try:
        box = PixelBox(*(float(side) for side in sides))  # type: ignore[arg-type]  # a foreign value: TypeError
    except (TypeError, ValueError, OverflowError) as error:
        raise BenchmarkUnreadable(f"{where}: the box {list(sides)} is not four numbers; fetch the file anew") from error
    if not all(map(math.isfinite, box)) or box.x_max <= box.x_min or box.y_max <= box.y_min:
        raise BenchmarkUnreadable(
            f"{where}: the box {list(box)} has no area; it is x_min, y_min, x_max, y_max in pixels"
        )
    return box


def _judgements_of(query: BenchmarkQuery, images: Set[str]) -> dict[str, Judgement]:
    """Return the judgements of what is there, without the readings that have no positive left."""
    found = {
        reading: Judgement(judgement.positives & images, judgement.junk & images)
        for reading, judgement in query.judgements.items()
    }
    return {
        reading: judgement
        for reading, judgement in found.items()
        if judgement.positives and len(judgement.positives) >= MINIMUM_SHARE * len(query.judgements[reading].positives)
    }


def _what_is_missing(query: BenchmarkQuery, reading: str, images: Set[str]) -> str:
    judgement = query.judgements.get(reading)
    found = judgement.positives & images if judgement else ()
    if not judgement or not found:
        return "none of its positives was found"
    return f"only {len(found)} of its {len(judgement.positives)} positives were found"


def _nothing_to_ask(protocol: Protocol, dropped: Sequence[LeftOut]) -> str:
    example = f" ({dropped[0].query}: {dropped[0].reason})" if dropped else ""
    return f"{protocol.name}: no query is left to ask{example}; check that the images are those of the ground truth"


def _share(found: int, official: int | None, noun: str) -> str:
    if official is None or found > official:
        return f"{found} {noun}"
    return f"all {found} {noun}" if found == official else f"{found} of {official} {noun}"
