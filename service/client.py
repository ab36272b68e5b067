"""A typed client of one server.

with Client("127.0.0.1:50051") as client:
    result = client.search(Path("photo.jpg"), region=Box(0.2, 0.1, 0.8, 0.9), localize_count=5)
    for hit in result.hits:
        print(hit.score, hit.image.uri, hit.box)
"""

import json
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, NoReturn, Self

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from indexer import errors
from indexer.boxes import Box
from service.results import CollectionInfo, Hit, SearchResult, StoredImage
from service.rpc import image_search_pb2 as pb
from service.rpc import image_search_pb2_grpc as rpc

DEFAULT_TIMEOUT_S = 60.0
_MAX_MESSAGE_BYTES = -1  # the server says what is too large
_RETRY = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "whatwhere.v1.ImageSearchService"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


class Client:
    """One connection, to be shared by threads. Every call raises the errors of `indexer.errors` that the server names.

    Calls time out after `timeout_s` and are tried again, up to 4 times, only while the server is unreachable.
    """

    def __init__(self, address: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.service_config", _RETRY),
            ],
        )
        self._stub = rpc.ImageSearchServiceStub(self._channel)  # type: ignore[no-untyped-call] # generated

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def search(  # noqa: PLR0913 - the request's fields, by name
        self,
        query: Path | bytes | str,
        *,
        region: Box | None = None,
        descriptor: str | None = None,
        page_size: int = 0,
        page_token: str = "",
        expansion_count: int = 0,
        localize_count: int = 0,
        exact: bool = False,
        min_score: float | None = None,
        filter: str = "",
    ) -> SearchResult:
        """Search by a picture (a path, or its bytes) or by a stored image (its name "images/{id}").

        `filter` (AIP-160, such as `label = "boat" AND width_px > 1000`) leaves out what it does not hold for.
        """
        request = pb.SearchImagesRequest(
            region=None if region is None else pb.Box(**region._asdict()),
            descriptor=_descriptor(descriptor),
            page_size=page_size,
            page_token=page_token,
            expansion_count=expansion_count,
            localize_count=localize_count,
            min_score=min_score,
            filter=filter,
            localization=pb.LOCALIZATION_EXACT if exact else pb.LOCALIZATION_STORED,
        )
        if isinstance(query, str):
            request.image = query
        else:
            request.image_content = query.read_bytes() if isinstance(query, Path) else query
        response = self._call(self._stub.SearchImages, request)
        return SearchResult(
            hits=tuple(_hit(hit) for hit in response.hits),
            region_fallback=response.region_fallback,
            kept_factor_count=response.kept_factor_count,
            has_more=bool(response.next_page_token),
            next_page_token=response.next_page_token,
        )

    def image(self, name: str) -> StoredImage:
        """Return the stored image "images/{id}"."""
        return _image(self._call(self._stub.GetImage, pb.GetImageRequest(name=name)).image)

    def images(self, *, filter: str = "") -> Iterator[StoredImage]:
        """Yield all stored images, oldest first, or those that `filter` holds for.

        PageTokenExpired where a newer generation is served before the last page (of 1000) was fetched: start again.
        """
        request = pb.ListImagesRequest(page_size=1000, filter=filter)
        while True:
            response = self._call(self._stub.ListImages, request)
            yield from map(_image, response.images)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    def collection(self) -> CollectionInfo:
        """Describe the collection that is being served."""
        found = self._call(self._stub.GetCollection, pb.GetCollectionRequest()).collection
        return CollectionInfo(
            generation=found.generation,
            latest_generation=found.latest_generation,
            image_count=found.image_count,
            backbone=found.backbone,
            rank=found.rank,
            descriptors=tuple(_descriptor_name(value) for value in found.descriptors),
            published_at=found.publish_time.ToDatetime(tzinfo=UTC),
        )

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            self._raise_typed(error)

    def _raise_typed(self, error: Any) -> NoReturn:
        """Raise the error that the status names, or the nearest one."""
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.reason in _BY_REASON:
                raise _BY_REASON[info.reason](error.details()) from error
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise errors.ServerUnreachable(
                f"no answer from {self._address} ({error.details()}): is `whatwhere serve` running there?"
            ) from error
        if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC itself refused the message's size
            raise errors.ImageTooManyBytes(f"the image is too large for the server: {error.details()}") from error
        raise errors.WhatwhereError(f"{error.code().name}: {error.details()}") from error


def _errors_by_reason(base: type[errors.WhatwhereError]) -> dict[str, type[errors.WhatwhereError]]:
    found = {base.reason: base}
    for derived in base.__subclasses__():
        found |= _errors_by_reason(derived)
    return found


_BY_REASON = _errors_by_reason(errors.WhatwhereError)


def _descriptor(name: str | None) -> str:
    """Return the enum's name: what-and-where → DESCRIPTOR_WHAT_AND_WHERE; None → DESCRIPTOR_UNSPECIFIED."""
    if name is None:
        return pb.Descriptor.Name(pb.DESCRIPTOR_UNSPECIFIED)
    enum_name = f"DESCRIPTOR_{name.upper().replace('-', '_')}"
    if enum_name not in pb.Descriptor.keys()[1:]:
        names = ", ".join(map(_descriptor_name, pb.Descriptor.values()[1:]))
        raise errors.UnknownName(f"descriptor {name!r} is unknown; there are: {names}")
    return enum_name


def _descriptor_name(value: int) -> str:
    return pb.Descriptor.Name(value).removeprefix("DESCRIPTOR_").lower().replace("_", "-")


def _hit(hit: pb.Hit) -> Hit:
    box = Box(hit.box.x_min, hit.box.y_min, hit.box.x_max, hit.box.y_max) if hit.HasField("box") else None
    return Hit(_image(hit.image), hit.score, box)


def _image(image: pb.Image) -> StoredImage:
    return StoredImage(
        name=image.name,
        uris=(image.uri, *image.duplicate_uris),
        width=image.width_px,
        height=image.height_px,
        byte_count=image.byte_count,
        mime_type=image.mime_type,
        sha256=image.sha256,
        created_at=image.create_time.ToDatetime(tzinfo=UTC),
        metadata=MessageToDict(image.metadata),
    )
