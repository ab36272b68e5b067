"""A typed client of a server, or of several that serve one collection.

with Client("127.0.0.1:50051") as client:
    result = client.search(Path("photo.jpg"), region=Box(0.2, 0.1, 0.8, 0.9), localize_count=5)
    for hit in result.hits:
        print(hit.score, hit.image.uri, hit.box)

Client("10.0.0.5:50051,10.0.0.6:50051") and Client("dns:///search.example.org:50051") ask several servers in turn.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from whatwhere.indexer import errors
from whatwhere.indexer.boxes import Box
from whatwhere.service.client import messages
from whatwhere.service.client.channels import open_channel
from whatwhere.service.client.defaults import DEFAULT_TIMEOUT_S
from whatwhere.service.client.failures import to_error
from whatwhere.service.client.requests import compare_request, explain_request, search_request
from whatwhere.service.client.targets import to_target
from whatwhere.service.results import CollectionInfo, ComparedImage, Explanation, PictureFile, SearchResult, StoredImage
from whatwhere.service.rpc import admin_pb2, admin_pb2_grpc
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc

_TOKEN = re.compile(r"[\x21-\x7e]+")

_Answer = TypeVar("_Answer")


class Client:
    """A connection that threads may share. Every call raises the error of `whatwhere.errors` that the server names.

    Calls time out after `timeout_s` and are tried again within it, up to 4 times, only while the server is unavailable
    (one and a half seconds where nobody answers, eight where a server says that it is starting). Without `credentials`
    the connection is plain text; a `token` goes over such a one only to this machine, unless `allow_insecure`: else
    InvalidRequest is raised.

    Several addresses (a list, or parted by commas), or dns:///NAME:PORT with several, are servers of one collection:
    calls go in turn to those that say they are serving, and what one has not answered when it dies, another does. The
    names in a list are looked up once; dns:///NAME:PORT is looked up again whenever a connection is lost. By TLS each
    server must have a certificate for the address or name; a list wants a `server_name` that all certificates are for.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        allow_insecure: bool = False,
        server_name: str | None = None,
    ) -> None:
        self._target = to_target(address)
        self.address = self._target.text
        self._timeout_s = timeout_s
        self._metadata = None if token is None else (("authorization", f"Bearer {_checked_token(token)}"),)
        if token is not None and credentials is None and not (self._target.loopback or allow_insecure):
            raise errors.InvalidRequest(
                f"the token would go to {self.address} in plain text: connect by TLS, or allow it (allow_insecure)",
                field="token",
            )
        self._channel = open_channel(self._target, credentials, server_name)
        self._stub = rpc.ImageSearchServiceStub(self._channel)  # type: ignore[no-untyped-call] # generated
        self._admin = admin_pb2_grpc.AdminServiceStub(self._channel)  # type: ignore[no-untyped-call] # generated
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._each: dict[str, Client] = {}
        self._looking_up = threading.Lock()
        host = None if credentials is None else self._target.host
        self._connect_to = partial(
            Client,
            timeout_s=timeout_s,
            token=token,
            credentials=credentials,
            allow_insecure=True,  # what the token may travel by was judged above
            server_name=server_name or host,
        )

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection, and those of `servers`."""
        self._channel.close()
        for client in self._each.values():
            client.close()

    def servers(self) -> tuple["Client", ...]:
        """Return a client of each server by itself, to be closed with this one; where there is but one, this one.

        Those of a DNS name are looked up each time; ServerUnreachable where it stands for none.
        """
        if not self._target.several:
            return (self,)
        with self._looking_up:
            found = self._target.look_up()
            self._each |= {server: self._connect_to(server) for server in found if server not in self._each}
            return tuple(self._each[server] for server in found)

    def search(  # noqa: PLR0913 - the request's fields, by name
        self,
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
    ) -> SearchResult:
        """Search by a picture (a path, or its bytes) or by a stored image (its name "images/{id}").

        What lies in the region is searched for (any of several boxes, or what is light in an encoded `mask`), of the
        factors whose indices `explain` tells. `filter` (AIP-160, such as `label = "boat" AND width_px > 1000`) leaves
        out what it does not hold for.
        """
        request = search_request(
            query,
            region=region,
            mask=mask,
            concepts=concepts,
            avoided_concepts=avoided_concepts,
            descriptor=descriptor,
            page_size=page_size,
            page_token=page_token,
            expansion_count=expansion_count,
            localize_count=localize_count,
            exact=exact,
            min_score=min_score,
            filter=filter,
        )
        return messages.search_result(self._call(self._stub.SearchImages, request))

    def image(self, name: str) -> StoredImage:
        """Return the stored image "images/{id}"."""
        return messages.image(self._call(self._stub.GetImage, pb.GetImageRequest(name=name)).image)

    def images(self, *, filter: str = "") -> Iterator[StoredImage]:
        """Yield all stored images, oldest first, or those that `filter` holds for.

        PageTokenExpired where a newer generation is served before the last page (of 1000) was fetched: start again.
        """
        request = pb.ListImagesRequest(page_size=1000, filter=filter)
        while True:
            response = self._call(self._stub.ListImages, request)
            yield from map(messages.image, response.images)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    def sample(self, count: int = 1, *, filter: str = "") -> tuple[StoredImage, ...]:
        """Return stored images drawn at random, at most 100, fewer where there are no more."""
        request = pb.SampleImagesRequest(count=count, filter=filter)
        return tuple(map(messages.image, self._call(self._stub.SampleImages, request).images))

    def content(self, name: str, size_px: int = 0) -> PictureFile:
        """Return the file of the stored image "images/{id}", or a JPEG of it whose longer side is `size_px`."""
        response = self._call(self._stub.GetImageContent, pb.GetImageContentRequest(name=name, size_px=size_px))
        return PictureFile(response.content, response.mime_type)

    def explain(self, query: Path | bytes | str, *, heatmap_size_px: int = 0, similar_count: int = 0) -> Explanation:
        """Return the factors of a picture (a path, its bytes, or a stored image's name), strongest first.

        With a PNG of each heatmap where a size is given, and the most similar factors of other images.
        """
        request = explain_request(query, heatmap_size_px=heatmap_size_px, similar_count=similar_count)
        return messages.explanation(self._call(self._stub.ExplainImage, request))

    def compare(
        self,
        query: Path | bytes | str,
        names: Sequence[str],
        *,
        rank: int = 0,
        exact: bool = False,
        heatmap_size_px: int = 0,
    ) -> tuple[ComparedImage, ...]:
        """Factorise a picture jointly with the stored images of these names; the picture comes first in the answer."""
        request = compare_request(query, names, rank=rank, exact=exact, heatmap_size_px=heatmap_size_px)
        return messages.compared(self._call(self._stub.CompareImages, request))

    def collection(self) -> CollectionInfo:
        """Describe the collection that is being served."""
        return messages.collection(self._call(self._stub.GetCollection, pb.GetCollectionRequest()).collection)

    def refresh(self) -> CollectionInfo:
        """Have every server look for a newer generation at once; returns the collection that is served then.

        Of several servers, that of the one that is furthest behind.
        """
        return min(self._of_all(Client._refresh), key=lambda collection: collection.generation)

    def health(self, service: str = "") -> bool:
        """Return whether a service, the server as a whole without a name, is serving; asks once, without retries.

        Of several servers, whether all are serving. UnknownName where the server has no service of this name.
        """
        return all(self._of_all(lambda server: server._is_serving(service)))

    def _of_all(self, ask: Callable[["Client"], _Answer]) -> list[_Answer]:
        servers = self.servers()
        with ThreadPoolExecutor(len(servers)) as pool:
            return list(pool.map(ask, servers))

    def _refresh(self) -> CollectionInfo:
        request = admin_pb2.RefreshCollectionRequest()
        return messages.collection(self._call(self._admin.RefreshCollection, request).collection)

    def _is_serving(self, service: str) -> bool:
        try:
            answer = self._call(self._health.Check, health_pb2.HealthCheckRequest(service=service))
        except errors.WhatwhereError as error:
            if isinstance(error.__cause__, grpc.Call) and error.__cause__.code() == grpc.StatusCode.NOT_FOUND:
                raise errors.UnknownName(f"{self.address} has no service {service!r}") from error
            raise
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _call(self, method: Any, request: Any) -> Any:
        deadline = time.monotonic() + self._timeout_s
        for may_be_asked_again in (True, False):
            try:
                return method(request, timeout=deadline - time.monotonic(), metadata=self._metadata)
            except grpc.RpcError as failure:
                if not (may_be_asked_again and _is_cut_off(failure)):
                    raise to_error(failure, self.address, self._timeout_s) from failure
        raise AssertionError("the second time it returns or raises")


def _is_cut_off(failure: Any) -> bool:
    """Tell whether the server died within its answer: gRPC does not try again what the head has come of."""
    return failure.code() == grpc.StatusCode.UNAVAILABLE and bool(failure.initial_metadata())


def _checked_token(token: str) -> str:
    """Return a token that can travel; what is wrong is not shown: gRPC's own error would."""
    if not _TOKEN.fullmatch(token):
        raise errors.InvalidRequest(
            "the token is empty or has characters other than printable ASCII without spaces", field="token"
        )
    return token
