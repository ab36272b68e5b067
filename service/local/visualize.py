"""What a concept looks like, from the command line: to the network, and in the photographs of a collection."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.reader import CollectionReader, open_collection
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.features.visualize import cosine_to, visualize_row
from whatwhere.indexer.images.decode import decode_image
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.sources.local import read_file
from whatwhere.indexer.storage.files import printable
from whatwhere.service.drawing.tiles import load_pixels
from whatwhere.service.results import stored_id
from whatwhere.service.search.searcher import Searcher, open_searcher, to_stored_image
from whatwhere.service.search.similar_factors import box_of_factor, row_of_factor, similar_factors
from whatwhere.service.search.visualization import Asked, Patch, Visualization, VisualizedImage


def visualize(
    asked: Asked,
    address: CollectionAddress,
    *,
    weights: Path | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Visualization:
    """Draw what the collection's network sees in a factor, and find the concept in the collection.

    Raises InvalidRequest for a file that cannot be read and a factor that the image has not, ImageNotFound,
    DescriptorNotIndexed, and the errors of opening a collection and its network.
    """
    with open_collection(address) as collection:
        image_id = None if Path(asked.image).exists() else stored_id(asked.image)
        stored = None if image_id is None else _stored(collection, image_id)
        if stored is not None:  # before the network is loaded
            _living_concept(stored, asked.factor)
        searcher = open_searcher(collection, device, weights=weights)
        source = stored or _described(searcher, Path(asked.image))
        concept = _living_concept(source, asked.factor)
        factor = asked.factor
        found = similar_factors(collection, source.description, [factor], asked.patches, own_id=source.own_id)[factor]
        images = {each.image_id: to_stored_image(collection.indexed_image(each.image_id)) for each in found}
    backbone = searcher.describer.backbone
    picture = visualize_row(backbone, concept, steps=asked.steps, seed=asked.seed, progress=progress)
    (activations,) = backbone.activations([picture])
    return Visualization(
        source,
        asked.factor,
        box_of_factor(source.description.factors, asked.factor),
        picture,
        float(cosine_to(concept, activations.cpu())),
        tuple(Patch(images[each.image_id], each) for each in found),
    )


def _living_concept(source: VisualizedImage, factor: int) -> Tensor:
    concept = row_of_factor(source.description, factor)
    if not concept.any():
        raise InvalidRequest(
            f"factor {factor} of {source.name} is dead, the image has fewer concepts: give a smaller one",
            field="factor",
        )
    return concept


def _stored(collection: CollectionReader, image_id: int) -> VisualizedImage:
    record = collection.indexed_image(image_id)
    image = to_stored_image(record)
    return VisualizedImage(image.name, load_pixels(image), collection.description(record), record.id)


def _described(searcher: Searcher, path: Path) -> VisualizedImage:
    """Describe a file as the collection's images were."""
    try:
        content = read_file(path, ImageLimits())
    except OSError as error:
        raise InvalidRequest(
            f"{printable(path)}: {error.strerror}; give an image file, or a stored image's name such as images/12",
            field="image",
        ) from error
    recipe = searcher.collection.recipe
    fitted = decode_image(content, printable(path), shorter_side=recipe.shorter_side).pixels
    (description,) = searcher.describer.describe([fitted])
    own_id = searcher.collection.catalog.id_of_content(hashlib.sha256(content).hexdigest())
    pixels = decode_image(content, printable(path), shorter_side=None).pixels
    return VisualizedImage(path.name, pixels, description, own_id)
