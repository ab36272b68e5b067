"""What a concept looks like, from the command line: to the network, and in the photographs of a collection."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from indexer.boxes import Box
from indexer.collection import Address, CollectionReader, open_collection
from indexer.describe import Description
from indexer.errors import InvalidRequest
from indexer.files import printable
from indexer.images import ImageLimits, decode_image
from indexer.reading import read_file
from indexer.visualize import STEPS, cosine_to, visualize_concept
from service.concepts import SimilarFactor, box_of_factor, concept_of, similar_factors
from service.figures import OPACITY
from service.heatmaps import colour_of, laid_over, layer_of
from service.pictures import COLUMNS, TILE_SIZE, Tile, draw_tiles, load_pixels
from service.results import StoredImage, stored_id
from service.searcher import Searcher, open_searcher, to_stored_image

PATCHES = 8
_MARGIN = 0.15  # around a patch, of its sides

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Asked:
    """What to visualise: one factor of `image`, a file or a stored image's name."""

    image: str
    factor: int
    patches: int = PATCHES
    steps: int = STEPS
    seed: int = 0


@dataclass(frozen=True)
class Source:
    """The image that the factor is of, `pixels` None where its file is not on this machine."""

    name: str
    pixels: Pixels | None
    description: Description
    own_id: int | None


@dataclass(frozen=True)
class Patch:
    """A stored image that shows the concept, and where."""

    image: StoredImage
    similar: SimilarFactor


@dataclass(frozen=True)
class Visualisation:
    """`picture` shows the concept as the network has it, its activations at this `cosine` to the factor's row of V."""

    source: Source
    factor: int
    box: Box | None
    picture: Pixels
    cosine: float
    patches: tuple[Patch, ...]


def visualize(
    asked: Asked,
    address: Address,
    *,
    weights: Path | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Visualisation:
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
    picture = visualize_concept(backbone, concept, steps=asked.steps, seed=asked.seed, progress=progress)
    (activations,) = backbone.activations([picture])
    return Visualisation(
        source,
        asked.factor,
        box_of_factor(source.description.factors, asked.factor),
        picture,
        float(cosine_to(concept, activations.cpu())),
        tuple(Patch(images[each.image_id], each) for each in found),
    )


def draw_visualisation(shown: Visualisation) -> Image.Image:
    """Draw the photograph, the factor's heatmap and what the network sees in it; below, four to a row, patches."""
    colour = colour_of(shown.factor)
    factor = f"factor {shown.factor}"
    boxes = () if shown.box is None else (shown.box,)
    photograph = Tile(shown.source.pixels, shown.source.name, "the photograph", boxes, colour)
    heatmap = Tile(_under_heatmap(shown, colour), factor, "where it is", colour=colour, swatch=True)
    picture = Tile(shown.picture, "what the network sees in it", f"made by gradient ascent, cosine {shown.cosine:.2f}")
    patches = [_patch_tile(rank, patch) for rank, patch in enumerate(shown.patches, start=1)]
    below = [patches[start : start + COLUMNS] for start in range(0, len(patches), COLUMNS)]
    return draw_tiles([[photograph, heatmap, picture], *below])


def _living_concept(source: Source, factor: int) -> Tensor:
    concept = concept_of(source.description, factor)
    if not concept.any():
        raise InvalidRequest(
            f"factor {factor} of {source.name} is dead, the image has fewer concepts: give a smaller one",
            field="factor",
        )
    return concept


def _stored(collection: CollectionReader, image_id: int) -> Source:
    record = collection.indexed_image(image_id)
    image = to_stored_image(record)
    return Source(image.name, load_pixels(image), collection.description(record), record.id)


def _described(searcher: Searcher, path: Path) -> Source:
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
    return Source(path.name, pixels, description, own_id)


def _under_heatmap(shown: Visualisation, colour: str) -> Pixels | None:
    if shown.source.pixels is None:
        return None
    photograph = ImageOps.contain(Image.fromarray(shown.source.pixels), TILE_SIZE)
    factors = shown.source.description.factors
    heat = factors.restore().where[:, shown.factor].reshape(factors.height, factors.width)
    layer = layer_of((heat / heat.max()).numpy(), colour, photograph.size, OPACITY)
    return laid_over(np.asarray(photograph), layer)


def _patch_tile(rank: int, patch: Patch) -> Tile:
    similar = patch.similar
    pixels = load_pixels(patch.image)
    detail = f"{patch.image.name}, factor {similar.factor}, score {similar.score:.3f}"
    return Tile(None if pixels is None else _cropped(pixels, similar.box), f"{rank}  {patch.image.file_name}", detail)


def _cropped(pixels: Pixels, box: Box | None) -> Pixels:
    """Cut out what is in a box, with a margin, and scale it to a tile."""
    photograph = Image.fromarray(pixels)
    if box is not None:
        across, down = _MARGIN * (box.x_max - box.x_min), _MARGIN * (box.y_max - box.y_min)
        sides = (box.x_min - across, box.y_min - down, box.x_max + across, box.y_max + down)
        x_min, y_min, x_max, y_max = (min(max(side, 0.0), 1.0) for side in sides)
        width, height = photograph.size
        photograph = photograph.crop(
            (int(x_min * width), int(y_min * height), round(x_max * width), round(y_max * height))
        )
    return np.asarray(ImageOps.contain(photograph, TILE_SIZE))
