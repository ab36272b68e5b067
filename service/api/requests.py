"""Check protobuf requests, and convert them to dataclasses. All checks of requests are here."""

from collections.abc import Mapping
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from whatwhere.indexer.boxes import Box, checked_box
from whatwhere.indexer.errors import InvalidFilter, InvalidRegion, InvalidRequest, MissingQuery
from whatwhere.indexer.features.regions import Area, Region
from whatwhere.indexer.images.decode import decode_image
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.metadata import filter_grammar  # noqa: F401 - before the first request with a filter
from whatwhere.indexer.metadata.filters import Expression, parse
from whatwhere.service.api.page_tokens import page_position, search_fingerprint
from whatwhere.service.results import stored_id
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.search.explain import Comparison
from whatwhere.service.search.places import name_of
from whatwhere.service.search.searcher import Example, Query, Searcher
from whatwhere.service.settings import Limits

PREFIX = "DESCRIPTOR_"
DESCRIPTOR_NAMES: Mapping[int, str | None] = {
    value: name.removeprefix(PREFIX).lower().replace("_", "-") for name, value in pb.Descriptor.items()
} | {pb.DESCRIPTOR_UNSPECIFIED: None}
_LOCALIZATIONS: Mapping[int, bool] = {
    pb.LOCALIZATION_UNSPECIFIED: False,
    pb.LOCALIZATION_STORED: False,
    pb.LOCALIZATION_EXACT: True,
}  # → whether exact
_Value = TypeVar("_Value")
Asked: TypeAlias = (
    pb.SearchImagesRequest
    | pb.ExplainImageRequest
    | pb.CompareImagesRequest
    | pb.GetImageRequest
    | pb.GetImageContentRequest
)


def to_query(request: pb.SearchImagesRequest, limits: Limits, generation: int, seal: str = "") -> Query:
    """Check a request and return the query. Raises InvalidRequest or a subclass with the name of the invalid field."""
    example = to_example(request)
    min_score = request.min_score if request.HasField("min_score") else None
    if min_score is not None and not -1 <= min_score <= 1:
        raise InvalidRequest(f"min_score is {min_score}: give a number from -1 to 1", field="min_score")
    offset, after = _position(request, example, generation, seal)
    return Query(
        content=example.content,
        image_id=example.image_id,
        region=to_region(request, limits),
        factors=frozenset(request.concepts),
        avoided_factors=frozenset(request.avoided_concepts),
        descriptor=_enum(DESCRIPTOR_NAMES, request.descriptor, "descriptor"),
        expansion_count=_count(request.expansion_count, limits.max_expansion_count, "expansion_count"),
        localize_count=_count(request.localize_count, limits.max_localize_count, "localize_count"),
        exact=_enum(_LOCALIZATIONS, request.localization, "localization"),
        min_score=min_score,
        filter=to_filter(request.filter, limits),
        offset=offset,
        after=after,
        count=page_size(request.page_size, limits.default_page_size, limits.max_page_size),
        known_hash=example.content_hash if request.page_token else None,
    )


def _position(
    request: pb.SearchImagesRequest, example: Example, generation: int, seal: str
) -> tuple[int, tuple[float, int] | None]:
    if not request.page_token:
        return 0, None  # before the upload is hashed
    return page_position(request.page_token, search_fingerprint(request, example.content_hash), generation, seal)


def to_example(request: pb.SearchImagesRequest | pb.ExplainImageRequest | pb.CompareImagesRequest) -> Example:
    """Return the query image. Raises MissingQuery if none is set."""
    kind = request.WhichOneof("query")
    if kind is None or (kind == "image_content" and not request.image_content):
        raise MissingQuery("the query is empty: set image_content (an encoded image) or image (images/{image})")
    return Example(
        content=request.image_content if kind == "image_content" else None,
        image_id=parse_image_name(request.image, "image") if kind == "image" else None,
    )


def name_stored(request: Asked, searcher: Searcher, limits: Limits) -> None:
    """Replace URIs of stored images in a request by their names, unless there are too many. Raises ImageNotFound."""
    if isinstance(request, pb.GetImageRequest | pb.GetImageContentRequest):
        request.name = name_of(searcher.collection, request.name)
        return
    if request.WhichOneof("query") == "image":
        request.image = name_of(searcher.collection, request.image)
    if isinstance(request, pb.CompareImagesRequest) and len(request.images) <= limits.max_compared_images:
        request.images[:] = [name_of(searcher.collection, name) for name in request.images]


def needs_network(request: pb.SearchImagesRequest | pb.ExplainImageRequest | pb.CompareImagesRequest) -> bool:
    """Return whether the answer needs a forward pass. The request is not checked yet."""
    if request.WhichOneof("query") == "image_content":
        return True
    if isinstance(request, pb.ExplainImageRequest) or not _LOCALIZATIONS.get(request.localization, False):
        return False
    return isinstance(request, pb.CompareImagesRequest) or request.localize_count > 0


def to_region(request: pb.SearchImagesRequest, limits: Limits) -> Region | None:
    """Return the region of a query, None for the whole image. Raises InvalidRegion."""
    boxes = [to_box(request.region)] if request.HasField("region") else []
    boxes += [to_box(box, f"more_regions[{place}]") for place, box in enumerate(request.more_regions)]
    if len(request.more_regions) >= limits.max_regions:
        raise InvalidRegion(
            f"more_regions has {len(request.more_regions)} boxes: give at most {limits.max_regions - 1}",
            field="more_regions",
        )
    if not boxes and not request.mask:
        return None
    if len(boxes) == 1 and not request.mask:
        return boxes[0]
    return Area(tuple(boxes), to_mask(request.mask, limits) if request.mask else None)


def to_box(box: pb.Box, field: str = "region") -> Box:
    """Check a box. Raises InvalidRegion with the name of the invalid side."""
    return checked_box(box.x_min, box.y_min, box.x_max, box.y_max, field)


def to_mask(content: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Decode a mask to its lightness, uint8 [h, w]. Raises InvalidRegion if it is unreadable, too large or black."""
    allowed = ImageLimits(limits.image.max_bytes, limits.max_mask_pixels)
    try:
        pixels = decode_image(content, "the mask", limits=allowed, shorter_side=None).pixels
    except InvalidRequest as error:
        raise InvalidRegion(str(error), field="mask") from error
    mask = np.array(Image.fromarray(pixels).convert("L"))
    if not mask.any():
        raise InvalidRegion("mask is black everywhere: paint the region to search for white", field="mask")
    return mask


def to_comparison(request: pb.CompareImagesRequest, limits: Limits) -> Comparison:
    """Check a request and return the comparison. Raises InvalidRequest or a subclass."""
    if not 1 <= len(request.images) <= limits.max_compared_images:
        raise InvalidRequest(
            f"images has {len(request.images)} names: give 1 to {limits.max_compared_images}", field="images"
        )
    return Comparison(
        example=to_example(request),
        image_ids=tuple(parse_image_name(name, "images") for name in request.images),
        rank=_count(request.rank, limits.max_compared_rank, "rank") or limits.default_compared_rank,
        exact=_enum(_LOCALIZATIONS, request.localization, "localization"),
        heatmap_size_px=picture_size(request.heatmap_size_px, limits, "heatmap_size_px"),
    )


def similar_count(request: pb.ExplainImageRequest, limits: Limits) -> int:
    """Return the number of similar factors. Raises InvalidRequest if it is out of range."""
    return _count(request.similar_count, limits.max_similar_count, "similar_count")


def picture_size(value: int, limits: Limits, field: str) -> int:
    """Return the longer side in pixels, or 0. Raises InvalidRequest if it is out of range."""
    if value != 0 and not limits.min_picture_px <= value <= limits.max_picture_px:
        raise InvalidRequest(
            f"{field} is {value}: give 0, or {limits.min_picture_px} to {limits.max_picture_px}", field=field
        )
    return value


def to_filter(text: str, limits: Limits) -> Expression | None:
    """Parse a filter; None if it is empty. Raises InvalidFilter if it is invalid or too long."""
    if len(text) > limits.max_filter_length:
        raise InvalidFilter(
            f"filter is {len(text):,} characters long: give at most {limits.max_filter_length:,}", field="filter"
        )
    return parse(text) if text else None


def parse_image_name(name: str, field: str) -> int:
    """Return the id in "images/{id}". Raises InvalidRequest for any other name."""
    found = stored_id(name)
    if found is None:
        raise InvalidRequest(
            f"{field} is {name[:80]!r}: give the name of a stored image, such as images/12, or its URI", field=field
        )
    return found


def page_size(value: int, default: int, maximum: int, field: str = "page_size") -> int:
    """Return the page size: 0 means the default, larger values are clamped. Raises InvalidRequest if negative."""
    if value < 0:
        raise InvalidRequest(f"{field} is {value}: give 0 (the default) or more", field=field)
    return min(value, maximum) or default


def _enum(table: Mapping[int, _Value], value: int, field: str) -> _Value:
    if value not in table:
        raise InvalidRequest(f"{field} is {value}: give one of {', '.join(map(str, table))}", field=field)
    return table[value]


def _count(value: int, maximum: int, field: str) -> int:
    if not 0 <= value <= maximum:
        raise InvalidRequest(f"{field} is {value}: give 0 to {maximum}", field=field)
    return value
