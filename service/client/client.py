"""Query one server, or several servers of one collection, with a typed client.

with Client("127.0.0.1:50051") as client:
    result = client.search(Path("photo.jpg"), SearchOptions(region=Box(0.2, 0.1, 0.8, 0.9), localize_count=5))
    for hit in result.hits:
        print(hit.score, hit.image.uri, hit.box)

Client("10.0.0.5:50051,10.0.0.6:50051") and Client("dns:///search.example.org:50051") balance requests over servers.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from whatwhere.indexer import errors
from whatwhere.service.client import messages
from whatwhere.service.client.channels import open_channel
from whatwhere.service.client.defaults import DEFAULT_TIMEOUT_S
from whatwhere.service.client.failures import to_error
from whatwhere.service.client.forks import call, cut_off
from whatwhere.service.client.requests import compare_request, explain_request, search_request
from whatwhere.service.client.targets import to_target
from whatwhere.service.client.unreachable import Way, proxy_of
from whatwhere.service.observability.tracing import trace_context
from whatwhere.service.results import CollectionInfo, ComparedImage, Explanation, PictureFile, SearchResult, StoredImage
from whatwhere.service.rpc import admin_pb2, admin_pb2_grpc
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc
from whatwhere.service.search_options import SearchOptions

_TOKEN = re.compile(r"[\x21-\x7e]+")

_Answer = TypeVar("_Answer")


class Client:
    """Call a server, or several servers of one collection. A client is thread-safe.

    A forked process can use it, too, unless another thread's call was in flight at the fork: then calls raise
    InvalidRequest.

    A failed call raises the error of `whatwhere.errors` that the server names. Calls time out after `timeout_s`
    seconds. Within this time, calls are retried up to 4 times while the server is unavailable: for 1.5 seconds if
    nothing answers, for 8 seconds if the server says that it is starting. Without `credentials` the connection is plain
    text. Raises InvalidRequest if a `token` would go in plain text to another machine, unless `allow_insecure` is set.

    `address` is HOST:PORT, several of them (a list, or comma-separated), or dns:///NAME:PORT. With several servers,
    calls go in turn to those that report SERVING, and a call that a dying server leaves unanswered goes to another.
    The names in a list are resolved once; dns:///NAME:PORT is resolved again whenever a connection is lost. With TLS,
    each server needs a certificate for the address or name; a list needs a `server_name` that all certificates cover.
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
        self._way = Way(self.address, timeout_s, credentials is not None, proxy_of(self._target))
        self._metadata = () if token is None else (("authorization", f"Bearer {_checked_token(token)}"),)
        if token is not None and credentials is None and not (self._target.loopback or allow_insecure):
            raise errors.InvalidRequest(
                f"the token would go to {self.address} in plain text: use TLS, or set allow_insecure",
                field="token",
            )
        self._channel = open_channel(self._target, credentials, server_name)
        self._stub = rpc.ImageSearchServiceStub(self._channel)  # type: ignore[no-untyped-call] # generated
        self._admin = admin_pb2_grpc.AdminServiceStub(self._channel)  # type: ignore[no-untyped-call] # generated
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)  # its stubs lack the methods
        self._each: dict[str, Client] = {}
        self._looking_up = threading.Lock()
        host = None if credentials is None else self._target.host
        self._connect_to = partial(
            Client,
            timeout_s=timeout_s,
            token=token,
            credentials=credentials,
            allow_insecure=True,  # checked above
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
        if cut_off():
            return  # closing would hang
        self._channel.close()
        for client in self._each.values():
            client.close()

    def servers(self) -> tuple["Client", ...]:
        """Return one client per server; with a single server, this client.

        Closing this client closes them all. A DNS name is resolved at each call; raises ServerUnreachable if it has no
        address.
        """
        if not self._target.several:
            return (self,)
        with self._looking_up:
            found = self._target.look_up()
            self._each |= {server: self._connect_to(server) for server in found if server not in self._each}
            return tuple(self._each[server] for server in found)

    def search(self, query: Path | bytes | str, options: SearchOptions | None = None) -> SearchResult:
        """Search with an image (a path, or its bytes) or with a stored image (its name "images/{id}", or a URI of it).

        Returns one page of results, best first. Raises InvalidRequest or a subclass if an option or the image is
        invalid, else ImageNotFound, DescriptorNotIndexed, PageTokenExpired or ServerOverloaded, as the server reports.
        """
        request = search_request(query, options or SearchOptions())
        return messages.search_result(self._call(self._stub.SearchImages, request))

    def image(self, name: str) -> StoredImage:
        """Return the stored image "images/{id}", or the one at a URI."""
        return messages.image(self._call(self._stub.GetImage, pb.GetImageRequest(name=name)).image)

    def images(self, *, filter: str = "") -> Iterator[StoredImage]:
        """Yield all stored images that match `filter`, oldest first.

        Raises PageTokenExpired if the server changes to a newer generation before the last page (of 1000 images) was
        fetched: start again.
        """
        request = pb.ListImagesRequest(page_size=1000, filter=filter)
        while True:
            response = self._call(self._stub.ListImages, request)
            yield from map(messages.image, response.images)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    def sample(self, count: int = 1, *, filter: str = "") -> tuple[StoredImage, ...]:
        """Return up to `count` (at most 100) random stored images that match `filter`."""
        request = pb.SampleImagesRequest(count=count, filter=filter)
        return tuple(map(messages.image, self._call(self._stub.SampleImages, request).images))

    def content(self, name: str, size_px: int = 0) -> PictureFile:
        """Return the file of a stored image, by name or URI; with `size_px`, a JPEG with this longer side in pixels."""
        response = self._call(self._stub.GetImageContent, pb.GetImageContentRequest(name=name, size_px=size_px))
        return PictureFile(response.content, response.mime_type)

    def explain(self, query: Path | bytes | str, *, heatmap_size_px: int = 0, similar_count: int = 0) -> Explanation:
        """Return the factors of an image (a path, its bytes, or a stored image's name), strongest first.

        A `heatmap_size_px` above 0 adds a PNG of each heatmap, with this longer side in pixels. A `similar_count` above
        0 adds the most similar factors of other images.
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
        """Factorize an image jointly with the stored images `names`; the result starts with the query image."""
        request = compare_request(query, names, rank=rank, exact=exact, heatmap_size_px=heatmap_size_px)
        return messages.compared(self._call(self._stub.CompareImages, request))

    def collection(self) -> CollectionInfo:
        """Return a description of the served collection."""
        return messages.collection(self._call(self._stub.GetCollection, pb.GetCollectionRequest()).collection)

    def refresh(self) -> CollectionInfo:
        """Make every server look for a newer generation now, and return the collection that is served then.

        With several servers, returns the oldest generation that any of them serves.
        """
        return min(self._of_all(Client._refresh), key=lambda collection: collection.generation)

    def health(self, service: str = "") -> bool:
        """Return whether a service is serving; without a name, whether the server is.

        With several servers, returns whether all are serving. Calls are not retried. Raises UnknownName if the server
        has no service of this name.
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

    def _call(self, method: Callable[..., _Answer], request: Message) -> _Answer:
        deadline = time.monotonic() + self._timeout_s
        metadata = (*self._metadata, *trace_context().items())
        for may_retry in (True, False):
            try:
                with call():
                    return method(request, timeout=deadline - time.monotonic(), metadata=metadata)
            except grpc.RpcError as failure:
                if not (may_retry and _is_cut_off(failure)):
                    raise to_error(failure, self._way) from failure
        raise AssertionError("the second attempt returns or raises")


def _is_cut_off(failure: grpc.RpcError) -> bool:
    """Return whether the server died within its response: gRPC does not retry once it has the initial metadata."""
    assert isinstance(failure, grpc.Call)  # every failure of a call is one
    return failure.code() == grpc.StatusCode.UNAVAILABLE and bool(failure.initial_metadata())


def _checked_token(token: str) -> str:
    """Return the token if HTTP/2 can carry it; the error hides its text, unlike gRPC's own."""
    if not _TOKEN.fullmatch(token):
        raise errors.InvalidRequest(
            "the token is empty or has characters other than printable ASCII without spaces", field="token"
        )
    return token
