"""What a visualization of one factor shows: the image, the generated picture, patches of other images."""

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
class Asked:
    """What to visualise: one factor of `image`, a file or a stored image's name."""

    image: str
    factor: int
    patches: int = DEFAULT_PATCHES
    steps: int = VISUALIZATION_STEPS
    seed: int = 0


@dataclass(frozen=True)
class VisualizedImage:
    """The image that the factor is of, `pixels` None where its file is not on this machine."""

    name: str
    pixels: Pixels | None
    description: Description
    own_id: int | None


@dataclass(frozen=True)
class Patch:
    """A stored image that shows the concept, and where."""

    image: StoredImage
    similar: FactorMatch


@dataclass(frozen=True)
class Visualization:
    """`picture` shows the concept as the network has it, its activations at this `cosine` to the factor's row of V."""

    source: VisualizedImage
    factor: int
    box: Box | None
    picture: Pixels
    cosine: float
    patches: tuple[Patch, ...]
