"""Convert dataclasses to protobuf responses."""

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from whatwhere.indexer.boxes import Box
from whatwhere.service.api.requests import PREFIX
from whatwhere.service.client.metadata import write_metadata
from whatwhere.service.results import CollectionInfo, ComparedImage, Explanation, Factor, Hit, SearchResult, StoredImage
from whatwhere.service.rpc import image_search_pb2 as pb


def enum_name(descriptor: str) -> str:
    """Return the enum name of a descriptor: what-and-where → DESCRIPTOR_WHAT_AND_WHERE."""
    return PREFIX + descriptor.upper().replace("-", "_")


def from_result(result: SearchResult, next_page_token: str) -> pb.SearchImagesResponse:
    """Return the response of a search."""
    return pb.SearchImagesResponse(
        hits=[from_hit(hit) for hit in result.hits],
        next_page_token=next_page_token,
        region_fallback=result.region_fallback,
        kept_factor_count=result.kept_factor_count,
    )


def from_hit(hit: Hit) -> pb.Hit:
    """Return one hit."""
    return pb.Hit(image=from_image(hit.image), score=hit.score, box=_from_box(hit.box))


def from_image(image: StoredImage) -> pb.Image:
    """Return a stored image."""
    created = Timestamp()
    created.FromDatetime(image.create_time)
    message = pb.Image(
        name=image.name,
        uri=image.uri,
        duplicate_uris=image.uris[1:],
        width_px=image.width_px,
        height_px=image.height_px,
        byte_count=image.byte_count,
        mime_type=image.mime_type,
        sha256=image.sha256,
        create_time=created,
    )
    write_metadata(message, image.metadata)
    return message


def from_explanation(explanation: Explanation) -> pb.ExplainImageResponse:
    """Return the response of an explanation."""
    image = None if explanation.image is None else from_image(explanation.image)
    return pb.ExplainImageResponse(factors=map(from_factor, explanation.factors), image=image)


def from_compared(compared: ComparedImage) -> pb.ComparedImage:
    """Return one of the compared images."""
    image = None if compared.image is None else from_image(compared.image)
    return pb.ComparedImage(image=image, factors=map(from_factor, compared.factors))


def from_factor(factor: Factor) -> pb.Factor:
    """Return one factor on one image."""
    height, width = factor.heat.shape
    values = np.rint(factor.heat * 255).astype(np.uint8).tobytes()
    return pb.Factor(
        index=factor.index,
        energy_share=factor.energy_share,
        box=_from_box(factor.box),
        heatmap=pb.Heatmap(height=height, width=width, values=values, png=factor.png),
        colour=factor.color,
        similar=[
            pb.SimilarFactor(
                image=from_image(found.image), factor=found.factor, score=found.score, box=_from_box(found.box)
            )
            for found in factor.similar
        ],
    )


def _from_box(box: Box | None) -> pb.Box | None:
    return None if box is None else pb.Box(**box._asdict())


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
