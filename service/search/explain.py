"""Explain images: their factors, joint factors, thumbnails and random samples of one generation.

Each function takes the searcher of the generation on which the request began.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from whatwhere.indexer.catalog.records import ImageRecord
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.images.decode import decode_within
from whatwhere.indexer.metadata.filters import Expression
from whatwhere.service.request_context import RequestContext
from whatwhere.service.results import ComparedImage, Explanation, Factor, PictureFile, SimilarFactor, StoredImage
from whatwhere.service.search.factor_maps import FactorMap, compare_exact, compare_stored, factor_maps
from whatwhere.service.search.heatmaps import color_of, heatmap_png
from whatwhere.service.search.searcher import Example, Searcher, to_stored_image
from whatwhere.service.search.similar_factors import similar_factors

_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Comparison:
    """A checked request to factorize an image and stored images jointly into `rank` factors.

    `exact` uses new activations instead of stored factors. `heatmap_size_px` 0 means no PNGs.
    """

    example: Example
    image_ids: tuple[int, ...]
    rank: int
    exact: bool = False
    heatmap_size_px: int = 0


def explain(
    searcher: Searcher, example: Example, heatmap_size_px: int, similar_count: int, context: RequestContext
) -> Explanation:
    """Return the factors of an image, strongest first, each with `similar_count` similar factors of stored images.

    `heatmap_size_px` is the longer side of the heatmaps' PNGs in pixels; 0 means no PNGs. Raises as
    `Searcher.describe`, and DescriptorNotIndexed if similar factors are requested and no index has factors.
    """
    description = searcher.describe(example, context)
    with context.stage("explain"):
        own_id = searcher.own_id(example)
        own = None if own_id is None else _record(searcher, own_id)
        stored = description.factors
        aspect = stored.width / stored.height if own is None else _aspect(own)
        maps = factor_maps(stored)
        similar = _similar(searcher, description, [found.index for found in maps], similar_count, own_id)
        context.check()
        factors = tuple(_factor(found, heatmap_size_px, aspect, similar[found.index]) for found in maps)
    return Explanation(factors, None if own is None else to_stored_image(own))


def compare(searcher: Searcher, comparison: Comparison, context: RequestContext) -> tuple[ComparedImage, ...]:
    """Factorize an image and stored images jointly, and return the factors on each of them, the image first.

    Raises as `Searcher.describe`, and SourceUnavailable if `exact` is set and a file cannot be read.
    """
    others = [searcher.collection.indexed_image(image_id) for image_id in comparison.image_ids]
    own: ImageRecord | None = None
    if comparison.example.image_id is not None:
        own = searcher.collection.indexed_image(comparison.example.image_id)
    if comparison.exact:
        grids = searcher.activations(comparison.example, others, context)
        with context.stage("explain"):
            maps = compare_exact(grids, comparison.rank)
    else:
        description = searcher.describe(comparison.example, context)
        with context.stage("explain"):
            stored = [searcher.collection.description(record).factors for record in others]
            maps = compare_stored([description.factors, *stored], comparison.rank)
    with context.stage("explain"):
        return tuple(
            _compared(record, found, comparison.heatmap_size_px)
            for record, found in zip([own, *others], maps, strict=True)
        )


def picture(searcher: Searcher, image_id: int, size_px: int, context: RequestContext) -> PictureFile:
    """Return a stored image's unchanged file, or a JPEG thumbnail with a longer side of `size_px` pixels if not 0.

    Raises ImageNotFound, and SourceUnavailable if no file with the indexed content can be read.
    """
    record = searcher.collection.indexed_image(image_id)
    with context.stage("decode"):
        content = searcher.read_source(record)
        if size_px == 0:
            return PictureFile(content, record.mime_type)
        return PictureFile(_thumbnail(content, size_px), "image/jpeg")


def sample(searcher: Searcher, count: int, matching: Expression | None) -> list[StoredImage]:
    """Return `count` distinct random images, uniformly distributed; fewer if fewer match the filter `matching`."""
    ids = searcher.collection.ids if matching is None else searcher.matching(matching)
    drawn = np.random.default_rng().choice(ids, min(count, len(ids)), replace=False)
    return [to_stored_image(record) for record in searcher.collection.indexed_images(drawn.tolist()).values()]


def _similar(
    searcher: Searcher, description: Description, factors: Sequence[int], count: int, own_id: int | None
) -> Mapping[int, tuple[SimilarFactor, ...]]:
    if count == 0:
        return dict.fromkeys(factors, ())
    found = similar_factors(searcher.collection, description, factors, count, own_id=own_id)
    records = searcher.collection.indexed_images({each.image_id for some in found.values() for each in some})
    return {
        factor: tuple(
            SimilarFactor(to_stored_image(records[each.image_id]), each.factor, each.score, each.box)
            for each in some
            if each.image_id in records
        )
        for factor, some in found.items()
    }


def _record(searcher: Searcher, image_id: int) -> ImageRecord | None:
    return searcher.collection.indexed_images([image_id]).get(image_id)


def _compared(record: ImageRecord | None, found: Sequence[FactorMap], size_px: int) -> ComparedImage:
    height, width = found[0].heat.shape
    aspect = width / height if record is None else _aspect(record)
    return ComparedImage(
        None if record is None else to_stored_image(record), tuple(_factor(each, size_px, aspect) for each in found)
    )


def _factor(found: FactorMap, size_px: int, aspect: float, similar: tuple[SimilarFactor, ...] = ()) -> Factor:
    color = color_of(found.index)
    png = heatmap_png(found.heat, color, size_px, aspect) if size_px else b""
    return Factor(found.index, found.energy_share, found.box, found.heat, color, png, similar)


def _aspect(record: ImageRecord) -> float:
    return (record.width or 1) / (record.height or 1)


def _thumbnail(content: bytes, size_px: int) -> bytes:
    written = io.BytesIO()
    Image.fromarray(decode_within(content, "the image", size_px).pixels).save(written, "JPEG", quality=_JPEG_QUALITY)
    return written.getvalue()
