"""The RPC methods: convert, ask the searcher, convert back."""

import grpc

from service import convert
from service.live import LiveSearcher
from service.rpc import image_search_pb2 as pb
from service.rpc import image_search_pb2_grpc as rpc
from service.settings import Limits


class ImageSearchServicer(rpc.ImageSearchServiceServicer):
    """Serves the live generation: a request takes its searcher once, and keeps to it when it is swapped meanwhile."""

    def __init__(self, live: LiveSearcher, limits: Limits) -> None:
        self._live = live
        self._limits = limits

    def SearchImages(  # noqa: N802 - the name is the proto's
        self, request: pb.SearchImagesRequest, context: grpc.ServicerContext
    ) -> pb.SearchImagesResponse:
        """Find the stored images most similar to a picture or a region of it."""
        searcher, limits = self._live.searcher, self._limits
        query = convert.to_query(request, limits, searcher.generation)
        result = searcher.search(query)
        following, fingerprint = query.offset + query.count, convert.search_fingerprint(request)
        more = result.has_more and following < limits.max_results
        token = convert.make_token(following, fingerprint, searcher.generation) if more else ""
        return convert.from_result(result, token)

    def GetImage(  # noqa: N802 - the name is the proto's
        self, request: pb.GetImageRequest, context: grpc.ServicerContext
    ) -> pb.GetImageResponse:
        """Return one stored image."""
        image = self._live.searcher.image(convert.parse_image_name(request.name, "name"))
        return pb.GetImageResponse(image=convert.from_image(image))

    def ListImages(  # noqa: N802 - the name is the proto's
        self, request: pb.ListImagesRequest, context: grpc.ServicerContext
    ) -> pb.ListImagesResponse:
        """List the stored images."""
        searcher, limits = self._live.searcher, self._limits
        fingerprint, matching = convert.list_fingerprint(request), convert.to_filter(request.filter, limits)
        after = convert.page_offset(request.page_token, fingerprint, searcher.generation)
        size = convert.page_size(request.page_size, limits.default_list_page_size, limits.max_list_page_size)
        images, last_id = searcher.images(after_id=after, count=size, matching=matching)
        token = convert.make_token(last_id, fingerprint, searcher.generation) if last_id else ""
        return pb.ListImagesResponse(images=map(convert.from_image, images), next_page_token=token)

    def GetCollection(  # noqa: N802 - the name is the proto's
        self, request: pb.GetCollectionRequest, context: grpc.ServicerContext
    ) -> pb.GetCollectionResponse:
        """Describe the collection."""
        return pb.GetCollectionResponse(collection=convert.from_collection(self._live.searcher.info()))
