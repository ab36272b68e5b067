"""The RPC methods: convert, ask the searcher, convert back."""

import grpc

from service import convert
from service.rpc import image_search_pb2 as pb
from service.rpc import image_search_pb2_grpc as rpc
from service.searcher import Searcher
from service.settings import Limits


class ImageSearchServicer(rpc.ImageSearchServiceServicer):
    """Serves one searcher."""

    def __init__(self, searcher: Searcher, limits: Limits) -> None:
        self._searcher = searcher
        self._limits = limits

    def SearchImages(  # noqa: N802 - the name is the proto's
        self, request: pb.SearchImagesRequest, context: grpc.ServicerContext
    ) -> pb.SearchImagesResponse:
        """Find the stored images most similar to a picture or a region of it."""
        generation = self._searcher.collection.manifest.number
        query = convert.to_query(request, self._limits, generation)
        result = self._searcher.search(query)
        following = query.offset + query.count
        token = ""
        if result.has_more and following < self._limits.max_results:
            token = convert.make_token(following, convert.search_fingerprint(request, generation))
        return convert.from_result(result, token)

    def GetImage(  # noqa: N802 - the name is the proto's
        self, request: pb.GetImageRequest, context: grpc.ServicerContext
    ) -> pb.GetImageResponse:
        """Return one stored image."""
        image = self._searcher.image(convert.parse_image_name(request.name, "name"))
        return pb.GetImageResponse(image=convert.from_image(image))

    def ListImages(  # noqa: N802 - the name is the proto's
        self, request: pb.ListImagesRequest, context: grpc.ServicerContext
    ) -> pb.ListImagesResponse:
        """List the stored images."""
        fingerprint = convert.list_fingerprint(self._searcher.collection.manifest.number)
        after = convert.page_offset(request.page_token, fingerprint)
        limits = self._limits
        size = convert.page_size(request.page_size, limits.default_list_page_size, limits.max_list_page_size)
        images, last_id = self._searcher.images(after_id=after, count=size)
        token = convert.make_token(last_id, fingerprint) if last_id else ""
        return pb.ListImagesResponse(images=map(convert.from_image, images), next_page_token=token)

    def GetCollection(  # noqa: N802 - the name is the proto's
        self, request: pb.GetCollectionRequest, context: grpc.ServicerContext
    ) -> pb.GetCollectionResponse:
        """Describe the collection."""
        return pb.GetCollectionResponse(collection=convert.from_collection(self._searcher.info()))
