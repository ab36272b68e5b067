"""Visualize a factor from the command line: as the network sees it, and in the images of a collection."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from whatwhere.indexer.backbones.names import DEFAULT_DEVICE
from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.reader import CollectionReader, open_collection
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.features.visualize import cosine_to, visualize_row
from whatwhere.indexer.images.decode import decode_image
from whatwhere.indexer.storage.files import file_named, printable
from whatwhere.indexer.storage.outputs import Output
from whatwhere.service.drawing.tiles import load_pixels
from whatwhere.service.local.originals import is_original, original_lost
from whatwhere.service.local.queries import A_FILE_OR_STORED, LIMITS, read_query
from whatwhere.service.local.search import is_stored
from whatwhere.service.request_context import RequestContext
from whatwhere.service.results import stored_id
from whatwhere.service.search.places import name_of
from whatwhere.service.search.searcher import Example, Searcher, open_searcher, to_stored_image
from whatwhere.service.search.similar_factors import box_of_factor, row_of_factor, similar_factors
from whatwhere.service.search.visualization import Patch, Visualization, VisualizationRequest, VisualizedImage


def visualize(
    request: VisualizationRequest,
    address: CollectionAddress,
    *,
    weights: Path | None = None,
    device: str = DEFAULT_DEVICE,
    progress: Callable[[int, int], None] | None = None,
    output: Output | None = None,
) -> Visualization:
    """Draw an image that shows a factor to the collection's network, and find the factor in other stored images.

    Raises InvalidRequest for a file that cannot be read, if `output` is an indexed image, and for a factor that the
    image lacks, ImageNotFound, DescriptorNotIndexed, and the errors of opening a collection and its network.
    """
    with open_collection(address) as collection:
        if output is not None and is_original(collection.catalog, output.path):
            raise original_lost(output)
        image_id = stored_id(name_of(collection, request.image)) if is_stored(request.image) else None
        stored = None if image_id is None else _stored(collection, image_id)
        if stored is not None:  # before the network is loaded
            _living_factor(stored, request.factor)
        searcher = open_searcher(collection, device, LIMITS, weights)
        source = stored or _described(searcher, file_named(request.image))
        row = _living_factor(source, request.factor)
        factor = request.factor
        found = similar_factors(collection, source.description, [factor], request.patches, own_id=source.own_id)[factor]
        images = {each.image_id: to_stored_image(collection.indexed_image(each.image_id)) for each in found}
    assert searcher.describer is not None
    backbone = searcher.describer.backbone
    picture = visualize_row(backbone, row, steps=request.steps, seed=request.seed, progress=progress)
    (activations,) = backbone.activations([picture])
    return Visualization(
        source,
        request.factor,
        box_of_factor(source.description.factors, request.factor),
        picture,
        float(cosine_to(row, activations.cpu())),
        tuple(Patch(images[each.image_id], each) for each in found),
    )


def _living_factor(source: VisualizedImage, factor: int) -> Tensor:
    """Return a factor's row of V; InvalidRequest for a dead one."""
    row = row_of_factor(source.description, factor)
    if not row.any():
        raise InvalidRequest(
            f"factor {factor} of {source.name} is dead: the image has fewer factors; give a smaller number",
            field="factor",
        )
    return row


def _stored(collection: CollectionReader, image_id: int) -> VisualizedImage:
    record = collection.indexed_image(image_id)
    image = to_stored_image(record)
    return VisualizedImage(image.name, load_pixels(image), collection.description(record), record.id)


def _described(searcher: Searcher, path: Path) -> VisualizedImage:
    """Describe a file as a server describes an upload."""
    content = read_query(path, A_FILE_OR_STORED)
    pixels = decode_image(content, printable(path), limits=searcher.limits, shorter_side=None).pixels
    example = Example(content)
    description = searcher.describe(example, RequestContext())
    return VisualizedImage(path.name, pixels, description, searcher.own_id(example))
