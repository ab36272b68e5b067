"""Data of a factor's visualization: the image, the generated image, patches of other images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.names import VISUALIZATION_STEPS
from whatwhere.service.results import StoredImage
from whatwhere.service.search.defaults import DEFAULT_PATCHES
from whatwhere.service.search.similar_factors import FactorMatch

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class VisualizationRequest:
    """One factor of `image` (a path or a stored image's name) to visualize.

    `patches` is the number of stored images, `steps` that of the gradient ascent, `seed` that of its noise.
    """

    image: str
    factor: int
    patches: int = DEFAULT_PATCHES
    steps: int = VISUALIZATION_STEPS
    seed: int = 0


@dataclass(frozen=True)
class VisualizedImage:
    """The image with the factor; `pixels` is None if its file cannot be read."""

    name: str
    pixels: Pixels | None
    description: Description
    own_id: int | None


@dataclass(frozen=True)
class Patch:
    """A stored image and its similar factor with its box."""

    image: StoredImage
    similar: FactorMatch


@dataclass(frozen=True)
class Visualization:
    """The visualization of one factor.

    `picture` is the generated image; `cosine` is that of its mean activations and the factor's row of V.
    """

    source: VisualizedImage
    factor: int
    box: Box | None
    picture: Pixels
    cosine: float
    patches: tuple[Patch, ...]
