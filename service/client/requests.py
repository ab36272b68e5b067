"""Write questions as the protobuf messages that servers are asked with. No gRPC: a collection is asked by them, too."""

from collections.abc import Sequence
from pathlib import Path

from whatwhere.indexer import errors
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.storage.bounded import read_bounded
from whatwhere.service.client import messages
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.search_options import SearchOptions


def search_request(query: Path | bytes | str, options: SearchOptions) -> pb.SearchImagesRequest:
    """Write a search. Raises UnknownName for a descriptor that does not exist."""
    boxes = [pb.Box(**box._asdict()) for box in options.boxes]
    request = pb.SearchImagesRequest(
        region=boxes[0] if boxes else None,
        more_regions=boxes[1:],
        mask=options.mask,
        concepts=options.factors,
        avoided_concepts=options.avoided_factors,
        descriptor=_descriptor(options.descriptor),
        page_size=options.page_size,
        page_token=options.page_token,
        expansion_count=options.expansion_count,
        localize_count=options.localize_count,
        min_score=options.min_score,
        filter=options.filter,
        localization=_localization(options.exact),
    )
    _set_query(request, query)
    return request


def explain_request(
    query: Path | bytes | str, *, heatmap_size_px: int = 0, similar_count: int = 0
) -> pb.ExplainImageRequest:
    """Write a request for an image's factors; the arguments are those of `Client.explain`."""
    request = pb.ExplainImageRequest(heatmap_size_px=heatmap_size_px, similar_count=similar_count)
    _set_query(request, query)
    return request


def compare_request(
    query: Path | bytes | str, names: Sequence[str], *, rank: int = 0, exact: bool = False, heatmap_size_px: int = 0
) -> pb.CompareImagesRequest:
    """Write a request for the factors that images share; the arguments are those of `Client.compare`."""
    request = pb.CompareImagesRequest(
        images=names, rank=rank, localization=_localization(exact), heatmap_size_px=heatmap_size_px
    )
    _set_query(request, query)
    return request


def _set_query(
    request: pb.SearchImagesRequest | pb.ExplainImageRequest | pb.CompareImagesRequest, query: Path | bytes | str
) -> None:
    if isinstance(query, str):
        request.image = query
    else:
        request.image_content = read_bounded(query, ImageLimits().max_bytes) if isinstance(query, Path) else query


def _localization(exact: bool) -> pb.Localization:
    return pb.LOCALIZATION_EXACT if exact else pb.LOCALIZATION_STORED


def _descriptor(name: str | None) -> str:
    """Return the enum's name: what-and-where → DESCRIPTOR_WHAT_AND_WHERE; None → DESCRIPTOR_UNSPECIFIED."""
    if name is None:
        return pb.Descriptor.Name(pb.DESCRIPTOR_UNSPECIFIED)
    enum_name = f"DESCRIPTOR_{name.upper().replace('-', '_')}"
    if enum_name not in pb.Descriptor.keys()[1:]:
        names = ", ".join(map(messages.descriptor_name, pb.Descriptor.values()[1:]))
        raise errors.UnknownName(f"descriptor {name!r} is unknown; there are: {names}")
    return enum_name
