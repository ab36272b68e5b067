"""Derive vectors from the descriptions that shards keep.

A file of its own: it brings torch, which a generation without new vectors does without.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

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
        with _one_core():
            vectors = np.stack([describe(description) for description in descriptions])
        yield vectors[np.argsort(found)]


@contextmanager
def _one_core() -> Iterator[None]:
    """Let torch take one core: the arrays are small. Measured, threads side by side take 1.3 times as long as one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
