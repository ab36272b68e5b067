"""See why from the command line: files described by a network here, or stored images from their stored factors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from whatwhere.indexer.backbones.backbone import Backbone, choose_device, load_backbone
from whatwhere.indexer.backbones.names import DEFAULT_BACKBONE
from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.reader import CollectionReader, open_collection
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import QuantizedFactors
from whatwhere.indexer.features.names import DEFAULT_RANK
from whatwhere.indexer.images.decode import DecodedImage, decode_image, size_within
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.sources.local import read_file
from whatwhere.indexer.storage.files import printable
from whatwhere.service.drawing.explanation import Photograph
from whatwhere.service.drawing.tiles import load_pixels
from whatwhere.service.results import stored_id
from whatwhere.service.search.factor_maps import (
    COMPARED_RANK,
    FactorMap,
    PrincipalMaps,
    compare_exact,
    compare_stored,
    factor_maps,
    principal_maps,
)
from whatwhere.service.search.searcher import to_stored_image

_WITHOUT_FILE = 512  # pixels of the longer side
_WHITE = 255


@dataclass(frozen=True)
class NetworkChoice:
    """What describes files: a network by its name, with the published weights or those of a file, on a device."""

    backbone: str = DEFAULT_BACKBONE
    weights: Path | None = None
    device: str = "auto"

    def load(self) -> Backbone:
        """Load the network."""
        return load_backbone(self.backbone, choose_device(self.device), weights=self.weights)


@dataclass(frozen=True)
class Explained:
    """One image's factors by rank, and its principal components where they were asked for."""

    photograph: Photograph
    by_rank: Mapping[int, tuple[FactorMap, ...]]
    principal: PrincipalMaps | None = None


@dataclass(frozen=True)
class Compared:
    """The factors of several images factorised jointly, in the order of the photographs."""

    photographs: tuple[Photograph, ...]
    factors: tuple[tuple[FactorMap, ...], ...]


def explain_file(
    path: Path, ranks: Sequence[int] = (DEFAULT_RANK,), network: NetworkChoice | None = None, *, pca: bool = False
) -> Explained:
    """Describe a file at each rank; InvalidRequest where it cannot be read, and the errors of loading a network."""
    decoded = _decoded(path)
    backbone = (network or NetworkChoice()).load()
    (grid,) = backbone.activations([decoded.pixels])
    described = {rank: Describer(backbone, rank).describe_activations([grid])[0].factors for rank in ranks}
    by_rank = {rank: factor_maps(factors) for rank, factors in described.items()}
    return Explained(_photograph(path, decoded), by_rank, principal_maps(grid) if pca else None)


def explain_stored(name: str, collection: CollectionAddress) -> Explained:
    """Explain a stored image, images/ID, by its stored factors; ImageNotFound, and the errors of opening."""
    with open_collection(collection) as reader:
        photograph, factors = _stored(name, reader)
    return Explained(photograph, {len(factors.what): factor_maps(factors)})


def compare_files(paths: Sequence[Path], rank: int = COMPARED_RANK, network: NetworkChoice | None = None) -> Compared:
    """Factorise files jointly from their activations; errors as of `explain_file`."""
    decoded = [_decoded(path) for path in paths]
    grids = (network or NetworkChoice()).load().activations([picture.pixels for picture in decoded])
    photographs = tuple(_photograph(path, picture) for path, picture in zip(paths, decoded, strict=True))
    return Compared(photographs, tuple(compare_exact(grids, rank)))


def compare_stored_images(names: Sequence[str], collection: CollectionAddress, rank: int = COMPARED_RANK) -> Compared:
    """Factorise stored images, images/ID each, jointly from their stored factors; errors as of `explain_stored`."""
    with open_collection(collection) as reader:
        photographs, factors = zip(*(_stored(name, reader) for name in names), strict=True)
    return Compared(photographs, tuple(compare_stored(factors, rank)))


def _decoded(path: Path) -> DecodedImage:
    try:
        content = read_file(path, ImageLimits())
    except OSError as error:
        raise InvalidRequest(
            f"{printable(path)}: {error.strerror}; give an image file, or a stored image's name such as images/12 with "
            "its --collection",
            field="image",
        ) from error
    return decode_image(content, printable(path))


def _photograph(path: Path, decoded: DecodedImage) -> Photograph:
    """Give what the network saw the photograph's proportions again."""
    size = size_within(decoded.width, decoded.height, max(decoded.pixels.shape))
    return Photograph(printable(path), np.asarray(Image.fromarray(decoded.pixels).resize(size)))


def _stored(name: str, reader: CollectionReader) -> tuple[Photograph, QuantizedFactors]:
    """Read a stored image's factors, and its file where that is on this machine."""
    image_id = stored_id(name)
    if image_id is None:
        raise InvalidRequest(
            f"{name} is no stored image's name: give images/ID (`whatwhere images` lists them), or leave out "
            "--collection to describe a file",
            field="image",
        )
    record = reader.indexed_image(image_id)
    image = to_stored_image(record)
    pixels = load_pixels(image)
    if pixels is None:
        width, height = size_within(image.width, image.height, _WITHOUT_FILE)
        pixels = np.full((height, width, 3), _WHITE, np.uint8)
    return Photograph(name, pixels), reader.description(record).factors
