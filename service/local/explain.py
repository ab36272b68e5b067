"""Explain and compare images that a server or an open collection knows, and files with the collection's network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from whatwhere.indexer.images.decode import DecodedImage, decode_image, size_within
from whatwhere.indexer.storage.files import file_named, printable
from whatwhere.indexer.storage.outputs import Output
from whatwhere.service.drawing.explanation import Drawn, Photograph
from whatwhere.service.drawing.tiles import load_pixels
from whatwhere.service.local.originals import spare_originals, spare_stored
from whatwhere.service.local.queries import A_FILE_OR_STORED, read_query
from whatwhere.service.local.search import Answering, is_stored
from whatwhere.service.settings import Limits

if TYPE_CHECKING:
    from whatwhere.service.search.principal_maps import PrincipalMaps

_WITHOUT_FILE = 512  # pixels of the longer side
_WHITE = 255


@dataclass(frozen=True)
class Explained:
    """One image's factors by rank, and its principal components if they were asked for."""

    photograph: Photograph
    by_rank: Mapping[int, tuple[Drawn, ...]]
    principal: "PrincipalMaps | None" = None


@dataclass(frozen=True)
class Compared:
    """The factors of several images factorized jointly, in the order of the photographs."""

    photographs: tuple[Photograph, ...]
    factors: tuple[tuple[Drawn, ...], ...]


def explain_image(image: str, answering: Answering, output: Output | None = None) -> Explained:
    """Explain a stored image, images/ID, by its stored factors, or a file by the collection's network.

    Raises InvalidRequest for a file that cannot be read, or if `output` is an indexed image, ImageNotFound, and the
    errors of `Client.explain`.
    """
    if output is not None:
        spare_originals(output, answering)
    query, photograph = _query(image, answering, output)
    found = answering.explain(query)
    return Explained(photograph, {len(found.factors): found.factors})


def compare_images(
    images: Sequence[str], answering: Answering, rank: int = 0, output: Output | None = None
) -> Compared:
    """Factorize images jointly from their stored factors: a stored image or a file, then stored images.

    `rank` 0 is the server's default. Raises the errors of `explain_image` and of `Client.compare`.
    """
    if output is not None:
        spare_originals(output, answering)
    query, first = _query(images[0], answering, output)
    others = tuple(_stored_photograph(name, answering, output) for name in images[1:])
    compared = answering.compare(query, images[1:], rank=rank or Limits.default_compared_rank)
    return Compared((first, *others), tuple(each.factors for each in compared))


def _query(image: str, answering: Answering, output: Output | None) -> tuple[str | bytes, Photograph]:
    """Return what is asked about, a name or the content of a file, and its photograph."""
    if is_stored(image):
        return image, _stored_photograph(image, answering, output)
    content, photograph, _ = read_photograph(file_named(image))
    return content, photograph


def read_photograph(path: Path) -> tuple[bytes, Photograph, DecodedImage]:
    """Read an image file: its content, its photograph, and what a network sees; InvalidRequest, UnreadableImage."""
    content = read_query(path, f"{A_FILE_OR_STORED} with its --collection or --server")
    decoded = decode_image(content, printable(path))
    # The network sees multiples of 32 pixels: scale back to the proportions of the file.
    size = size_within(decoded.width, decoded.height, max(decoded.pixels.shape))
    return content, Photograph(printable(path), np.asarray(Image.fromarray(decoded.pixels).resize(size))), decoded


def _stored_photograph(name: str, answering: Answering, output: Output | None) -> Photograph:
    """Return a stored image's photograph, white if its file is not on this machine. `output` must not replace it."""
    image = answering.image(name)
    if output is not None:
        spare_stored(output, [image])
    pixels = load_pixels(image)
    if pixels is None:
        width, height = size_within(image.width_px, image.height_px, _WITHOUT_FILE)
        pixels = np.full((height, width, 3), _WHITE, np.uint8)
    return Photograph(name, pixels)
