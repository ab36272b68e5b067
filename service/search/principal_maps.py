"""Principal components of an image's cells, to compare factors with. A file of its own: it brings scikit-learn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from whatwhere.indexer.features import pooling

PRINCIPAL_COMPONENTS = 3


@dataclass(frozen=True)
class PrincipalMaps:
    """Principal components of an image's cells, the alternative to factors: signed, largest variance first.

    `maps` float32 [h, w, 3]; `variance_shares` are of the variance of all cells.
    """

    maps: NDArray[np.float32]
    variance_shares: tuple[float, ...]


def principal_maps(grid: Tensor) -> PrincipalMaps:
    """Return the principal components of activations [h, w, C], weighted by channel as those that are factorised."""
    height, width, _ = grid.shape
    cells = (grid * pooling.crow_channel_weights(grid)).flatten(0, 1).cpu().numpy()
    analysis = PCA(PRINCIPAL_COMPONENTS, svd_solver="full").fit(cells)
    maps = analysis.transform(cells).astype(np.float32).reshape(height, width, PRINCIPAL_COMPONENTS)
    return PrincipalMaps(maps, tuple(analysis.explained_variance_ratio_.tolist()))
