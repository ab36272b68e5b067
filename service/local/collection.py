"""Open a collection in this process and answer as its server does: the same checks, functions and results."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from whatwhere.indexer.backbones.names import DEFAULT_DEVICE
from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.reader import CollectionReader, open_collection
from whatwhere.indexer.sources.local import is_local_and_gone
from whatwhere.service.api import requests
from whatwhere.service.client.requests import compare_request, explain_request, search_request
from whatwhere.service.local.originals import is_original
from whatwhere.service.local.queries import LIMITS
from whatwhere.service.request_context import RequestContext
from whatwhere.service.results import ComparedImage, Explanation, SearchResult, StoredImage
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.search import explain
from whatwhere.service.search.searcher import Searcher, open_searcher
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.settings import Limits


class LocalCollection:
    """Answers questions about one collection. Its methods are those of `Client`, and answer alike.

    A question is written as the message that a server is sent, and goes through the checks that a server makes. The
    network is loaded by the first question that needs it; `weights` is its checkpoint if that is not the published one.
    """

    def __init__(self, reader: CollectionReader, device: str = DEFAULT_DEVICE, weights: Path | None = None) -> None:
        self._limits = Limits(image=LIMITS)
        self._device = device
        self._weights = weights
        self._searcher = Searcher(reader, None, self._limits.image)

    def close(self) -> None:
        """Stop the network. The collection stays open: its opener closes it."""
        self._searcher.batcher.close()

    def is_original(self, path: Path) -> bool:
        """Tell whether a file is an indexed original, by its place or its content."""
        return is_original(self._searcher.collection.catalog, path)

    def image(self, name: str) -> StoredImage:
        """Return the stored image "images/{id}", or of a URI; ImageNotFound, InvalidRequest."""
        request = pb.GetImageRequest(name=name)
        requests.name_stored(request, self._searcher, self._limits)
        return _with_living_first(self._searcher.image(requests.parse_image_name(request.name, "name")))

    def search(self, query: Path | bytes | str, options: SearchOptions | None = None) -> SearchResult:
        """Search by an image (a path, or its bytes) or a stored image's name. Options and errors: `Client.search`."""
        request = search_request(query, options or SearchOptions())
        requests.name_stored(request, self._searcher, self._limits)
        checked = requests.to_query(request, self._limits, self._searcher.generation)
        found = self._ready_for(request).search(checked)
        return replace(found, hits=tuple(replace(hit, image=_with_living_first(hit.image)) for hit in found.hits))

    def explain(self, query: Path | bytes | str, *, heatmap_size_px: int = 0, similar_count: int = 0) -> Explanation:
        """Return the factors of an image, strongest first. Arguments and errors: `Client.explain`."""
        request = explain_request(query, heatmap_size_px=heatmap_size_px, similar_count=similar_count)
        requests.name_stored(request, self._searcher, self._limits)
        example, similar = requests.to_example(request), requests.similar_count(request, self._limits)
        size_px = requests.picture_size(request.heatmap_size_px, self._limits, "heatmap_size_px")
        return explain.explain(self._ready_for(request), example, size_px, similar, RequestContext())

    def compare(
        self,
        query: Path | bytes | str,
        names: Sequence[str],
        *,
        rank: int = 0,
        exact: bool = False,
        heatmap_size_px: int = 0,
    ) -> tuple[ComparedImage, ...]:
        """Factorize an image jointly with stored images; it comes first. Arguments and errors: `Client.compare`."""
        request = compare_request(query, names, rank=rank, exact=exact, heatmap_size_px=heatmap_size_px)
        requests.name_stored(request, self._searcher, self._limits)
        comparison = requests.to_comparison(request, self._limits)
        return explain.compare(self._ready_for(request), comparison, RequestContext())

    def _ready_for(
        self, request: pb.SearchImagesRequest | pb.ExplainImageRequest | pb.CompareImagesRequest
    ) -> Searcher:
        """Return the searcher, with the network if the answer needs it; given weights are always checked."""
        searcher = self._searcher
        if searcher.describer is None and (self._weights is not None or requests.needs_network(request)):
            limits, batcher = searcher.limits, searcher.batcher
            self._searcher = open_searcher(searcher.collection, self._device, limits, self._weights, batcher)
        return self._searcher


def _with_living_first(image: StoredImage) -> StoredImage:
    """Return an image with several places so that the first one exists, also if a file went after the last run.

    A server does not look: its answers must not wait for a network drive. Here it takes microseconds for each place.
    """
    if len(image.uris) < 2:
        return image
    return replace(image, uris=tuple(sorted(image.uris, key=is_local_and_gone)))


@contextmanager
def open_local(
    address: CollectionAddress, *, device: str = DEFAULT_DEVICE, weights: Path | None = None
) -> Iterator[LocalCollection]:
    """Open the live generation of a collection for questions, without a server. Raises the errors of opening it."""
    with open_collection(address) as reader:
        opened = LocalCollection(reader, device, weights)
        try:
            yield opened
        finally:
            opened.close()
