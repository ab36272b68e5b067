"""The RPC methods: convert, ask the searcher in a thread of the right lane, convert back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from whatwhere.service import request_context as tickets
from whatwhere.service.api import page_tokens, requests, responses
from whatwhere.service.api.admission import WorkerPool
from whatwhere.service.request_context import RequestContext
from whatwhere.service.rpc import admin_pb2, admin_pb2_grpc
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc
from whatwhere.service.search import explain
from whatwhere.service.search.hot_swap import LiveSearcher
from whatwhere.service.search.searcher import Searcher
from whatwhere.service.settings import Limits

_Response = TypeVar("_Response")


@dataclass(frozen=True)
class WorkerPools:
    """Threads for what needs the network, and others for what does not: the cheap does not wait behind the dear."""

    uploads: WorkerPool
    searches: WorkerPool
    pictures: WorkerPool  # to look at: a page of results asks for one each

    def close(self) -> None:
        """Refuse what waits."""
        self.uploads.close()
        self.searches.close()
        self.pictures.close()


class ImageSearchServicer(rpc.ImageSearchServiceServicer):
    """Serves the live generation: a request takes its searcher once, and keeps to it when it is swapped meanwhile."""

    def __init__(self, live: Callable[[], LiveSearcher], lanes: WorkerPools, limits: Limits) -> None:
        self._live = live  # raises ServerNotReady as long as there is none
        self._lanes = lanes
        self._limits = limits

    async def SearchImages(  # noqa: N802 - the name is the proto's
        self, request: pb.SearchImagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SearchImagesResponse:
        """Find the stored images most similar to a picture or a region of it."""
        lane = self._lanes.uploads if requests.needs_network(request) else self._lanes.searches
        return await self._in(lane, lambda searcher, ticket: self._search(searcher, ticket, request))

    async def GetImage(  # noqa: N802 - the name is the proto's
        self, request: pb.GetImageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetImageResponse:
        """Return one stored image."""
        return await self._in(self._lanes.searches, lambda searcher, _: _get(searcher, request))

    async def ListImages(  # noqa: N802 - the name is the proto's
        self, request: pb.ListImagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListImagesResponse:
        """List the stored images."""
        return await self._in(self._lanes.searches, lambda searcher, _: self._list(searcher, request))

    async def SampleImages(  # noqa: N802 - the name is the proto's
        self, request: pb.SampleImagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SampleImagesResponse:
        """Draw stored images at random."""
        return await self._in(self._lanes.searches, lambda searcher, _: self._sample(searcher, request))

    async def GetImageContent(  # noqa: N802 - the name is the proto's
        self, request: pb.GetImageContentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetImageContentResponse:
        """Return a stored image's picture."""
        return await self._in(self._lanes.pictures, lambda searcher, ticket: self._content(searcher, ticket, request))

    async def ExplainImage(  # noqa: N802 - the name is the proto's
        self, request: pb.ExplainImageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExplainImageResponse:
        """Show a picture's factors."""
        lane = self._lanes.uploads if requests.needs_network(request) else self._lanes.searches
        return await self._in(lane, lambda searcher, ticket: self._explain(searcher, ticket, request))

    async def CompareImages(  # noqa: N802 - the name is the proto's
        self, request: pb.CompareImagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CompareImagesResponse:
        """Show the concepts that pictures share."""
        lane = self._lanes.uploads if requests.needs_network(request) else self._lanes.searches
        return await self._in(lane, lambda searcher, ticket: self._compare(searcher, ticket, request))

    async def GetCollection(  # noqa: N802 - the name is the proto's
        self, request: pb.GetCollectionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetCollectionResponse:
        """Describe the collection."""
        return await self._in(
            self._lanes.searches,
            lambda searcher, _: pb.GetCollectionResponse(collection=responses.from_collection(searcher.info())),
        )

    async def _in(self, lane: WorkerPool, answer: Callable[[Searcher, RequestContext], _Response]) -> _Response:
        searcher, ticket = self._live().searcher, tickets.current.get()
        return await lane.run(lambda: answer(searcher, ticket), ticket)

    def _search(
        self, searcher: Searcher, ticket: RequestContext, request: pb.SearchImagesRequest
    ) -> pb.SearchImagesResponse:
        limits = self._limits
        query = requests.to_query(request, limits, searcher.generation)
        result = searcher.search(query, ticket)
        following, token = query.offset + query.count, ""
        if result.has_more and following < limits.max_results:
            fingerprint = page_tokens.search_fingerprint(request, query.content_hash)
            token = page_tokens.make_token(following, fingerprint, searcher.generation)
        return responses.from_result(result, token)

    def _list(self, searcher: Searcher, request: pb.ListImagesRequest) -> pb.ListImagesResponse:
        limits = self._limits
        fingerprint, matching = page_tokens.list_fingerprint(request), requests.to_filter(request.filter, limits)
        after = page_tokens.page_offset(request.page_token, fingerprint, searcher.generation)
        size = requests.page_size(request.page_size, limits.default_list_page_size, limits.max_list_page_size)
        images, last_id = searcher.images(after_id=after, count=size, matching=matching)
        token = page_tokens.make_token(last_id, fingerprint, searcher.generation) if last_id else ""
        return pb.ListImagesResponse(images=map(responses.from_image, images), next_page_token=token)

    def _sample(self, searcher: Searcher, request: pb.SampleImagesRequest) -> pb.SampleImagesResponse:
        count = requests.page_size(request.count, 1, self._limits.max_sample_size, "count")
        images = explain.sample(searcher, count, requests.to_filter(request.filter, self._limits))
        return pb.SampleImagesResponse(images=map(responses.from_image, images))

    def _content(
        self, searcher: Searcher, ticket: RequestContext, request: pb.GetImageContentRequest
    ) -> pb.GetImageContentResponse:
        image_id = requests.parse_image_name(request.name, "name")
        size_px = requests.picture_size(request.size_px, self._limits, "size_px")
        found = explain.picture(searcher, image_id, size_px, ticket)
        return pb.GetImageContentResponse(content=found.content, mime_type=found.mime_type)

    def _explain(
        self, searcher: Searcher, ticket: RequestContext, request: pb.ExplainImageRequest
    ) -> pb.ExplainImageResponse:
        size_px = requests.picture_size(request.heatmap_size_px, self._limits, "heatmap_size_px")
        similar_count = requests.similar_count(request, self._limits)
        found = explain.explain(searcher, requests.to_example(request), size_px, similar_count, ticket)
        return responses.from_explanation(found)

    def _compare(
        self, searcher: Searcher, ticket: RequestContext, request: pb.CompareImagesRequest
    ) -> pb.CompareImagesResponse:
        compared = explain.compare(searcher, requests.to_comparison(request, self._limits), ticket)
        return pb.CompareImagesResponse(images=map(responses.from_compared, compared))


def _get(searcher: Searcher, request: pb.GetImageRequest) -> pb.GetImageResponse:
    image = searcher.image(requests.parse_image_name(request.name, "name"))
    return pb.GetImageResponse(image=responses.from_image(image))


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """What an operator may ask of a running server."""

    def __init__(self, live: Callable[[], LiveSearcher], lane: WorkerPool) -> None:
        self._live = live
        self._lane = lane

    async def RefreshCollection(  # noqa: N802 - the name is the proto's
        self, request: admin_pb2.RefreshCollectionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> admin_pb2.RefreshCollectionResponse:
        """Look for a newer generation now."""
        live = self._live()

        def refreshed() -> admin_pb2.RefreshCollectionResponse:
            live.refresh()
            return admin_pb2.RefreshCollectionResponse(collection=responses.from_collection(live.searcher.info()))

        return await self._lane.run(refreshed, tickets.current.get())
