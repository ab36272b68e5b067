"""Derive vectors from the descriptions that shards keep.

A file of its own: it brings torch, which a generation without new vectors does without.
"""

from collections.abc import Callable, Iterator

import numpy as np

from whatwhere.indexer.backbones.torch_threads import torch_threads
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.segments import stored_descriptions
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.vectors.arrays import Ids, Vectors

_READ_AT_ONCE = 1024  # images


def derived_vectors(
    layout: Layout, catalog: Catalog, describe: Callable[[Description], Vectors], ids: Ids
) -> Iterator[Vectors]:
    """Yield the vectors [N, D] of these ids (sorted), derived from shards, in blocks and in their order."""
    for start in range(0, len(ids), _READ_AT_ONCE):
        some = ids[start : start + _READ_AT_ONCE].tolist()
        found, descriptions = zip(*stored_descriptions(layout, catalog, some), strict=True)
        with torch_threads(1):  # the arrays are small. Measured, parallel threads take 1.3 times as long as one
            vectors = np.stack([describe(description) for description in descriptions])
        yield vectors[np.argsort(found)]
