"""Protobuf ↔ dataclasses, and every check of a request."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import TypeVar

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from indexer.boxes import Box, checked_box
from indexer.errors import InvalidFilter, InvalidPageToken, InvalidRequest, MissingQuery, PageTokenExpired
from indexer.filters import Expression, parse
from service.results import CollectionInfo, Hit, SearchResult, StoredImage
from service.rpc import image_search_pb2 as pb
from service.searcher import Query
from service.settings import Limits

_PREFIX = "DESCRIPTOR_"
DESCRIPTOR_NAMES: Mapping[int, str | None] = {
    value: name.removeprefix(_PREFIX).lower().replace("_", "-") for name, value in pb.Descriptor.items()
} | {pb.DESCRIPTOR_UNSPECIFIED: None}
_LOCALIZATIONS: Mapping[int, bool] = {
    pb.LOCALIZATION_UNSPECIFIED: False,
    pb.LOCALIZATION_STORED: False,
    pb.LOCALIZATION_EXACT: True,
}  # → whether exact
_Value = TypeVar("_Value")
_IMAGE_NAME = re.compile(r"images/([1-9][0-9]{0,17})", re.ASCII)


# --- requests ---------------------------------------------------------------------------------------------------


def to_query(request: pb.SearchImagesRequest, limits: Limits, generation: int) -> Query:
    """Check a request and return the query; InvalidRequest and its kin name the field at fault."""
    kind = request.WhichOneof("query")
    if kind is None or (kind == "image_content" and not request.image_content):
        raise MissingQuery("the query is empty: set image_content (an encoded picture) or image (images/{image})")
    min_score = request.min_score if request.HasField("min_score") else None
    if min_score is not None and not -1 <= min_score <= 1:
        raise InvalidRequest(f"min_score is {min_score}: give -1 to 1", field="min_score")
    return Query(
        content=request.image_content if kind == "image_content" else None,
        image_id=parse_image_name(request.image, "image") if kind == "image" else None,
        region=to_box(request.region) if request.HasField("region") else None,
        descriptor=_enum(DESCRIPTOR_NAMES, request.descriptor, "descriptor"),
        expansion_count=_count(request.expansion_count, limits.max_expansion_count, "expansion_count"),
        localize_count=_count(request.localize_count, limits.max_localize_count, "localize_count"),
        exact=_enum(_LOCALIZATIONS, request.localization, "localization"),
        min_score=min_score,
        filter=to_filter(request.filter, limits),
        offset=page_offset(request.page_token, search_fingerprint(request), generation),
        count=page_size(request.page_size, limits.default_page_size, limits.max_page_size),
    )


def needs_network(request: pb.SearchImagesRequest) -> bool:
    """Tell whether the answer needs a forward pass, before anything is checked."""
    exact = _LOCALIZATIONS.get(request.localization, False) and request.localize_count > 0
    return request.WhichOneof("query") == "image_content" or exact


def to_box(box: pb.Box) -> Box:
    """Check a box; InvalidRegion when it is none."""
    return checked_box(box.x_min, box.y_min, box.x_max, box.y_max)


def to_filter(text: str, limits: Limits) -> Expression | None:
    """Parse a filter, None where there is none; InvalidFilter when it is none or too long."""
    if len(text) > limits.max_filter_length:
        raise InvalidFilter(
            f"filter is {len(text):,} characters long: give at most {limits.max_filter_length:,}", field="filter"
        )
    return parse(text) if text else None


def parse_image_name(name: str, field: str) -> int:
    """Return the id in "images/{id}", or raise InvalidRequest."""
    match = _IMAGE_NAME.fullmatch(name)
    if match is None:
        raise InvalidRequest(f"{field} is {name[:80]!r}: give a stored image's name, such as images/12", field=field)
    return int(match[1])


def page_size(value: int, default: int, maximum: int) -> int:
    """Return the page size to use: 0 is the default, too large is clamped, negative is refused."""
    if value < 0:
        raise InvalidRequest(f"page_size is {value}: give 0 (the default) or more", field="page_size")
    return min(value, maximum) or default


def _enum(table: Mapping[int, _Value], value: int, field: str) -> _Value:
    if value not in table:
        raise InvalidRequest(f"{field} is {value}: give one of {', '.join(map(str, table))}", field=field)
    return table[value]


def _count(value: int, maximum: int, field: str) -> int:
    if not 0 <= value <= maximum:
        raise InvalidRequest(f"{field} is {value}: give 0 to {maximum}", field=field)
    return value


def enum_name(descriptor: str) -> str:
    """Return the enum's name for a descriptor's: what-and-where → DESCRIPTOR_WHAT_AND_WHERE."""
    return _PREFIX + descriptor.upper().replace("-", "_")


# --- page tokens ------------------------------------------------------------------------------------------------


def search_fingerprint(request: pb.SearchImagesRequest) -> str:
    """Digest what decides, within a generation, the order of a search's results."""
    decisive = pb.SearchImagesRequest()
    decisive.CopyFrom(request)
    for name in ("page_size", "page_token", "localize_count", "localization"):
        decisive.ClearField(name)
    return _digest(decisive.SerializeToString(deterministic=True))


def list_fingerprint(request: pb.ListImagesRequest) -> str:
    """Digest what decides, within a generation, the order of a listing."""
    return _digest(b"ListImages\0" + request.filter.encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def make_token(offset: int, fingerprint: str, generation: int) -> str:
    """Return the token of the page that starts after `offset`."""
    return base64.urlsafe_b64encode(json.dumps([offset, fingerprint, generation]).encode()).decode()


def page_offset(token: str, fingerprint: str, generation: int) -> int:
    """Return where the page of `token` starts, 0 without one.

    InvalidPageToken when it was made for something else, PageTokenExpired when on another generation.
    """
    if not token:
        return 0
    try:
        offset, found, made_on = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        offset, found, made_on = None, None, None
    if found != fingerprint or type(offset) is not int or offset < 0 or type(made_on) is not int:
        raise InvalidPageToken("page_token was not made for this request: start at the first page", field="page_token")
    if made_on != generation:
        raise PageTokenExpired(
            f"page_token was made on generation {made_on}, generation {generation} is being served now: "
            "start at the first page",
            field="page_token",
        )
    return offset


# --- responses --------------------------------------------------------------------------------------------------


def from_result(result: SearchResult, next_page_token: str) -> pb.SearchImagesResponse:
    """Return the response of a search."""
    return pb.SearchImagesResponse(
        hits=[from_hit(hit) for hit in result.hits],
        next_page_token=next_page_token,
        region_fallback=result.region_fallback,
        kept_factor_count=result.kept_factor_count,
    )


def from_hit(hit: Hit) -> pb.Hit:
    """Return a result; the box is absent where there is none."""
    box = None if hit.box is None else pb.Box(**hit.box._asdict())
    return pb.Hit(image=from_image(hit.image), score=hit.score, box=box)


def from_image(image: StoredImage) -> pb.Image:
    """Return a stored image."""
    metadata, created = Struct(), Timestamp()
    metadata.update(image.metadata)
    created.FromDatetime(image.created_at)
    return pb.Image(
        name=image.name,
        uri=image.uri,
        duplicate_uris=image.uris[1:],
        width_px=image.width,
        height_px=image.height,
        byte_count=image.byte_count,
        mime_type=image.mime_type,
        sha256=image.sha256,
        create_time=created,
        metadata=metadata,
    )


def from_collection(info: CollectionInfo) -> pb.Collection:
    """Return the description of a collection."""
    published = Timestamp()
    published.FromDatetime(info.published_at)
    return pb.Collection(
        generation=info.generation,
        image_count=info.image_count,
        backbone=info.backbone,
        rank=info.rank,
        descriptors=[enum_name(name) for name in info.descriptors],
        publish_time=published,
        latest_generation=info.latest_generation,
    )
