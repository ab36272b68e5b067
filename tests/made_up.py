"""Create collections of made-up descriptions: the files are real, no network is needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from whatwhere.indexer.catalog.records import NewImage, Outcome, Source
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.writer import CollectionWriter, open_for_writing
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.descriptors import find_descriptor
from whatwhere.indexer.features.nmf import Factors, quantize
from whatwhere.indexer.features.whitener_fitting import fit
from whatwhere.indexer.features.whitening import Whitener, WhitenerKey

RANK, CHANNELS, DIMENSIONS = 3, 24, 8
DESCRIPTORS = ("what", "what-and-where", "fused", "r-mac")
RECIPE = Recipe(
    "some-net",
    "some-layer",
    "0" * 64,
    RANK,
    512,
    precision="float32",
    pooled=("r-mac",),
    descriptors=DESCRIPTORS,
    preset="thesis",
)


def described(seed: int, height: int = 3, width: int = 4, regions: int = 2) -> Description:
    """Return the description of an imaginary image."""
    random = torch.Generator().manual_seed(seed)
    where = torch.rand(height * width, RANK, generator=random)
    what = torch.rand(RANK, CHANNELS, generator=random)
    pooled = torch.rand(regions, CHANNELS, generator=random).half().numpy()
    return Description(quantize(Factors(where, what), height, width), {"r-mac": pooled})


def whitener_of(descriptor: str, seed: int = 0) -> Whitener:
    """Return a whitener fitted to random rows of length 1."""
    rows = np.random.default_rng(seed).random((60, CHANNELS), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return fit(rows, WhitenerKey("some-net", "some-layer", "0" * 64, descriptor), "noise", DIMENSIONS)


def whiteners_of(seed: int) -> dict[str, tuple[Whitener, ...]]:
    """Return a whitener for each part of each descriptor."""
    methods = [find_descriptor(name, RECIPE.preset) for name in RECIPE.descriptors]
    return {method.name: tuple(whitener_of(rows, seed) for rows in method.whiteners) for method in methods}


WHITENERS = whiteners_of(seed=0)
OTHER_WHITENERS = whiteners_of(seed=1)


def vector_of(
    description: Description, name: str, whiteners: Mapping[str, Sequence[Whitener]] = WHITENERS
) -> NDArray[np.float32]:
    """Return the vector that a collection of these tests holds for a description."""
    return find_descriptor(name, RECIPE.preset).describe(description, whiteners[name])


def found(seeds: Sequence[int]) -> list[Outcome]:
    """Return one new image per seed, each with its own URI, rows in order."""
    return [
        Outcome(Source(f"file:///{seed}.jpg", 10, 1), NewImage(f"{seed}", 10, 640, 480, "image/jpeg", row))
        for row, seed in enumerate(seeds)
    ]


def stored(seed: int) -> Description:
    """Return the description for a seed: grids and rows of several sizes."""
    return described(seed, height=2 + seed % 3, regions=1 + seed % 2)


def append(writer: CollectionWriter, *seeds: int) -> None:
    """Record one described image per seed, in one shard."""
    writer.append(found(seeds), [stored(seed) for seed in seeds])


def publish_with(writer: CollectionWriter, whiteners: Mapping[str, Sequence[Whitener]] = WHITENERS) -> Manifest | None:
    """Return the new generation, None where there is none."""
    published = publish(writer.layout, writer.catalog, writer.recipe, whiteners)
    return published.manifest if published.is_new else None


def fill(
    root: Path, *chunks: Sequence[int], whiteners: Mapping[str, Sequence[Whitener]] = WHITENERS
) -> Manifest | None:
    """Open the collection at `root`, keep the chunks, publish."""
    with open_for_writing(root, RECIPE) as writer:
        for chunk in chunks:
            append(writer, *chunk)
        return publish_with(writer, whiteners)


def take_away(root: Path, seed: int) -> None:
    """Overwrite the only source of an image with bytes that are not an image."""
    failure = NewImage(f"no longer {seed}", 10, failure_reason="UNREADABLE_IMAGE", failure_message="torn")
    with open_for_writing(root, RECIPE) as writer:
        writer.append([Outcome(Source(f"file:///{seed}.jpg", 10, 2), failure)], [])


def ids_of(root: Path) -> dict[str, list[int]]:
    with open_collection(root) as reader:
        return {name: sorted(index.vectors.ids.tolist()) for name, index in reader.indexes.items()}


def in_every_index(*ids: int) -> dict[str, list[int]]:
    return {name: list(ids) for name in RECIPE.descriptors}
