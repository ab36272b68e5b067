"""Fit a whitener. A file of its own: scikit-learn takes seconds to import, and only training needs it."""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from whatwhere.indexer.errors import WhitenerUnavailable
from whatwhere.indexer.features.names import DEFAULT_DIMENSIONS
from whatwhere.indexer.features.whitening import Whitener, WhitenerKey


def fit(rows: NDArray[np.float32], key: WhitenerKey, trained_on: str, dimensions: int = DEFAULT_DIMENSIONS) -> Whitener:
    """Fit a whitener to unit rows [N, C], with at most `dimensions` dimensions (and at most C and N - 1).

    Raises WhitenerUnavailable if there are fewer than 2 rows.
    """
    if len(rows) < 2:
        raise WhitenerUnavailable(f"{len(rows)} rows of {key.descriptor} are too few to train a whitener on")
    components = min(dimensions, rows.shape[1], len(rows) - 1)
    pca = PCA(components, svd_solver="covariance_eigh").fit(rows.astype(np.float64))
    projection = pca.components_.T / np.sqrt(np.maximum(pca.explained_variance_, np.finfo(np.float32).eps))
    return Whitener(key, _rounded(pca.mean_), _rounded(projection), trained_on)


def _rounded(array: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to the float16 of the file, so that a fitted whitener equals the saved one."""
    return np.ascontiguousarray(array.astype(np.float16).astype(np.float32))
