"""Write questions as the protobuf messages that servers are asked with. No gRPC: a collection is asked by them, too."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from whatwhere.indexer import errors
from whatwhere.indexer.boxes import Box
from whatwhere.service.client import messages
from whatwhere.service.rpc import image_search_pb2 as pb


def search_request(  # noqa: PLR0913 - the request's fields, by name
    query: Path | bytes | str,
    *,
    region: Box | Sequence[Box] | None = None,
    mask: bytes = b"",
    concepts: Iterable[int] = (),
    avoided_concepts: Iterable[int] = (),
    descriptor: str | None = None,
    page_size: int = 0,
    page_token: str = "",
    expansion_count: int = 0,
    localize_count: int = 0,
    exact: bool = False,
    min_score: float | None = None,
    filter: str = "",
) -> pb.SearchImagesRequest:
    """Write a search; the arguments are those of `Client.search`. UnknownName for a descriptor that does not exist."""
    boxes = [pb.Box(**box._asdict()) for box in _boxes(region)]
    request = pb.SearchImagesRequest(
        region=boxes[0] if boxes else None,
        more_regions=boxes[1:],
        mask=mask,
        concepts=concepts,
        avoided_concepts=avoided_concepts,
        descriptor=_descriptor(descriptor),
        page_size=page_size,
        page_token=page_token,
        expansion_count=expansion_count,
        localize_count=localize_count,
        min_score=min_score,
        filter=filter,
        localization=_localization(exact),
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
        request.image_content = query.read_bytes() if isinstance(query, Path) else query


def _boxes(region: Box | Sequence[Box] | None) -> Sequence[Box]:
    if region is None:
        return ()
    return (region,) if isinstance(region, Box) else region


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
