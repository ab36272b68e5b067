"""RPC methods: convert the request, run the search in a worker pool, convert the result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from whatwhere.service.api import page_tokens, requests, responses
from whatwhere.service.api.admission import WorkerPool
from whatwhere.service.request_context import RequestContext, current_request
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
    """Worker pools by cost, so that fast requests do not wait behind slow ones.

    `uploads` runs requests that need the network, `pictures` thumbnails and files, `searches` all others.
    """

    uploads: WorkerPool
    searches: WorkerPool
    pictures: WorkerPool  # a page of results requests one for each hit

    def close(self) -> None:
        """Cancel queued requests."""
        self.uploads.close()
        self.searches.close()
        self.pictures.close()


class ImageSearchServicer(rpc.ImageSearchServiceServicer):
    """Serves the live generation. A request reads the searcher once, and ends on the generation on which it began."""

    def __init__(self, live: Callable[[], LiveSearcher], worker_pools: WorkerPools, limits: Limits) -> None:
        self._live = live  # raises ServerNotReady until a collection is open
        self._worker_pools = worker_pools
        self._limits = limits

    async def SearchImages(  # noqa: N802 - the name is the proto's
        self, request: pb.SearchImagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SearchImagesResponse:
        """Find the stored images most similar to an image or a region of it."""
        worker_pool = self._worker_pools.uploads if requests.needs_network(request) else self._worker_pools.searches
        return await self._run(
            worker_pool, lambda searcher, request_context: self._search(searcher, request_context, request)
        )

    async def GetImage(  # noqa: N802 - the name is the proto's
        self, request: pb.GetImageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetImageResponse:
        """Return one stored image."""
        return await self._run(self._worker_pools.searches, lambda searcher, _: self._get(searcher, request))

    async def ListImages(  # noqa: N802 - the name is the proto's
        self, request: pb.ListImagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListImagesResponse:
        """List the stored images."""
        return await self._run(self._worker_pools.searches, lambda searcher, _: self._list(searcher, request))

    async def SampleImages(  # noqa: N802 - the name is the proto's
        self, request: pb.SampleImagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SampleImagesResponse:
        """Return random stored images."""
        return await self._run(self._worker_pools.searches, lambda searcher, _: self._sample(searcher, request))

    async def GetImageContent(  # noqa: N802 - the name is the proto's
        self, request: pb.GetImageContentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetImageContentResponse:
        """Return a thumbnail or the file of a stored image."""
        return await self._run(
            self._worker_pools.pictures,
            lambda searcher, request_context: self._content(searcher, request_context, request),
        )

    async def ExplainImage(  # noqa: N802 - the name is the proto's
        self, request: pb.ExplainImageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExplainImageResponse:
        """Return the factors of an image."""
        worker_pool = self._worker_pools.uploads if requests.needs_network(request) else self._worker_pools.searches
        return await self._run(
            worker_pool, lambda searcher, request_context: self._explain(searcher, request_context, request)
        )

    async def CompareImages(  # noqa: N802 - the name is the proto's
        self, request: pb.CompareImagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CompareImagesResponse:
        """Return joint factors of several images."""
        worker_pool = self._worker_pools.uploads if requests.needs_network(request) else self._worker_pools.searches
        return await self._run(
            worker_pool, lambda searcher, request_context: self._compare(searcher, request_context, request)
        )

    async def GetCollection(  # noqa: N802 - the name is the proto's
        self, request: pb.GetCollectionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetCollectionResponse:
        """Describe the collection."""
        return await self._run(
            self._worker_pools.searches,
            lambda searcher, _: pb.GetCollectionResponse(collection=responses.from_collection(searcher.info())),
        )

    async def _run(self, worker_pool: WorkerPool, answer: Callable[[Searcher, RequestContext], _Response]) -> _Response:
        searcher, request_context = self._live().searcher, current_request.get()
        return await worker_pool.run(lambda: answer(searcher, request_context), request_context)

    def _search(
        self, searcher: Searcher, request_context: RequestContext, request: pb.SearchImagesRequest
    ) -> pb.SearchImagesResponse:
        limits = self._limits
        requests.name_stored(request, searcher, limits)
        query = requests.to_query(request, limits, searcher.generation, searcher.seal)
        result = searcher.search(query, request_context)
        following, token = query.offset + query.count, ""
        if result.has_more and following < limits.max_results:
            fingerprint = page_tokens.search_fingerprint(request, query.content_hash)
            token = page_tokens.make_token(following, fingerprint, searcher.generation, searcher.seal, result.last)
        return responses.from_result(result, token)

    def _get(self, searcher: Searcher, request: pb.GetImageRequest) -> pb.GetImageResponse:
        requests.name_stored(request, searcher, self._limits)
        image = searcher.image(requests.parse_image_name(request.name, "name"))
        return pb.GetImageResponse(image=responses.from_image(image))

    def _list(self, searcher: Searcher, request: pb.ListImagesRequest) -> pb.ListImagesResponse:
        limits = self._limits
        fingerprint, matching = page_tokens.list_fingerprint(request), requests.to_filter(request.filter, limits)
        after = page_tokens.page_offset(request.page_token, fingerprint, searcher.generation, searcher.seal)
        size = requests.page_size(request.page_size, limits.default_list_page_size, limits.max_list_page_size)
        images, last_id = searcher.images(after_id=after, count=size, matching=matching)
        token = page_tokens.make_token(last_id, fingerprint, searcher.generation, searcher.seal) if last_id else ""
        return pb.ListImagesResponse(images=map(responses.from_image, images), next_page_token=token)

    def _sample(self, searcher: Searcher, request: pb.SampleImagesRequest) -> pb.SampleImagesResponse:
        count = requests.page_size(request.count, 1, self._limits.max_sample_size, "count")
        images = explain.sample(searcher, count, requests.to_filter(request.filter, self._limits))
        return pb.SampleImagesResponse(images=map(responses.from_image, images))

    def _content(
        self, searcher: Searcher, request_context: RequestContext, request: pb.GetImageContentRequest
    ) -> pb.GetImageContentResponse:
        requests.name_stored(request, searcher, self._limits)
        image_id = requests.parse_image_name(request.name, "name")
        size_px = requests.picture_size(request.size_px, self._limits, "size_px")
        found = explain.picture(searcher, image_id, size_px, request_context)
        return pb.GetImageContentResponse(content=found.content, mime_type=found.mime_type)

    def _explain(
        self, searcher: Searcher, request_context: RequestContext, request: pb.ExplainImageRequest
    ) -> pb.ExplainImageResponse:
        size_px = requests.picture_size(request.heatmap_size_px, self._limits, "heatmap_size_px")
        similar_count = requests.similar_count(request, self._limits)
        requests.name_stored(request, searcher, self._limits)
        found = explain.explain(searcher, requests.to_example(request), size_px, similar_count, request_context)
        return responses.from_explanation(found)

    def _compare(
        self, searcher: Searcher, request_context: RequestContext, request: pb.CompareImagesRequest
    ) -> pb.CompareImagesResponse:
        requests.name_stored(request, searcher, self._limits)
        compared = explain.compare(searcher, requests.to_comparison(request, self._limits), request_context)
        return pb.CompareImagesResponse(images=map(responses.from_compared, compared))


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Serves operators of a running server."""

    def __init__(self, live: Callable[[], LiveSearcher], worker_pool: WorkerPool) -> None:
        self._live = live
        self._worker_pool = worker_pool

    async def RefreshCollection(  # noqa: N802 - the name is the proto's
        self, request: admin_pb2.RefreshCollectionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> admin_pb2.RefreshCollectionResponse:
        """Open and serve the newest generation now."""
        live = self._live()

        def refreshed() -> admin_pb2.RefreshCollectionResponse:
            live.refresh()
            return admin_pb2.RefreshCollectionResponse(collection=responses.from_collection(live.searcher.info()))

        return await self._worker_pool.run(refreshed, current_request.get())
