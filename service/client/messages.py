"""Convert the server's protobuf responses to dataclasses."""

from datetime import UTC

import numpy as np

from whatwhere.indexer.boxes import Box
from whatwhere.service.client.metadata import read_metadata
from whatwhere.service.results import (
    CollectionInfo,
    ComparedImage,
    Explanation,
    Factor,
    Hit,
    SearchResult,
    SimilarFactor,
    StoredImage,
)
from whatwhere.service.rpc import image_search_pb2 as pb


def search_result(response: pb.SearchImagesResponse) -> SearchResult:
    """Return one page of results."""
    return SearchResult(
        hits=tuple(Hit(image(hit.image), hit.score, _box(hit)) for hit in response.hits),
        region_fallback=response.region_fallback,
        kept_factor_count=response.kept_factor_count,
        has_more=bool(response.next_page_token),
        next_page_token=response.next_page_token,
    )


def image(found: pb.Image) -> StoredImage:
    """Return a stored image."""
    return StoredImage(
        name=found.name,
        uris=(found.uri, *found.duplicate_uris),
        width_px=found.width_px,
        height_px=found.height_px,
        byte_count=found.byte_count,
        mime_type=found.mime_type,
        sha256=found.sha256,
        create_time=found.create_time.ToDatetime(tzinfo=UTC),
        metadata=read_metadata(found),
    )


def explanation(response: pb.ExplainImageResponse) -> Explanation:
    """Return the factors of an image."""
    return Explanation(tuple(map(_factor, response.factors)), _image_of(response))


def compared(response: pb.CompareImagesResponse) -> tuple[ComparedImage, ...]:
    """Return the compared images, the query first."""
    return tuple(ComparedImage(_image_of(found), tuple(map(_factor, found.factors))) for found in response.images)


def collection(found: pb.Collection) -> CollectionInfo:
    """Return the description of a collection."""
    return CollectionInfo(
        generation=found.generation,
        latest_generation=found.latest_generation,
        image_count=found.image_count,
        backbone=found.backbone,
        rank=found.rank,
        descriptors=tuple(descriptor_name(value) for value in found.descriptors),
        published_at=found.publish_time.ToDatetime(tzinfo=UTC),
    )


def descriptor_name(value: int) -> str:
    """Return a descriptor's name: DESCRIPTOR_WHAT_AND_WHERE → what-and-where."""
    return pb.Descriptor.Name(value).removeprefix("DESCRIPTOR_").lower().replace("_", "-")


def _factor(found: pb.Factor) -> Factor:
    heat = np.frombuffer(found.heatmap.values, dtype=np.uint8).reshape(found.heatmap.height, found.heatmap.width)
    return Factor(
        index=found.index,
        energy_share=found.energy_share,
        box=_box(found),
        heat=np.asarray(heat / 255, dtype=np.float32),
        color=found.colour,
        png=found.heatmap.png,
        similar=tuple(
            SimilarFactor(image(similar.image), similar.factor, similar.score, _box(similar))
            for similar in found.similar
        ),
    )


def _box(holder: pb.Hit | pb.Factor | pb.SimilarFactor) -> Box | None:
    box = holder.box
    return Box(box.x_min, box.y_min, box.x_max, box.y_max) if holder.HasField("box") else None


def _image_of(holder: pb.ExplainImageResponse | pb.ComparedImage) -> StoredImage | None:
    return image(holder.image) if holder.HasField("image") else None
