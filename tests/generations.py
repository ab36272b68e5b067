"""Publish generations of a collection from perturbed descriptions of photographs, without a network."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.catalog.records import INDEXED, NewImage, Outcome, Source
from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.descriptors import find_descriptor
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.indexer.pipeline.publishing import publish_changes

Whiteners = Mapping[str, Sequence[Whitener]]


def perturbed(description: Description, seed: int) -> Description:
    """Return a similar description, with factors and rows changed by up to a half."""
    random = np.random.default_rng(seed)

    def noisy(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return (values * random.uniform(0.5, 1, values.shape)).round().astype(np.uint8)

    factors = replace(description.factors, what=noisy(description.factors.what))
    return Description(factors, {name: noisy(rows) for name, rows in description.pooled.items()})


def turned(whiteners: Whiteners, seed: int) -> dict[str, tuple[Whitener, ...]]:
    """Return whiteners that halve some dimensions, so that all scores change."""
    random = np.random.default_rng(seed)

    def halved(projection: NDArray[np.float32]) -> NDArray[np.float32]:
        factors = random.choice([0.5, 1.0], projection.shape[1])
        return (projection * factors).astype(np.float16).astype(np.float32)  # as precise as it can be kept

    return {
        name: tuple(replace(part, projection=halved(part.projection)) for part in parts)
        for name, parts in whiteners.items()
    }


class Publisher:
    """Write generations of a collection; `descriptions` holds the descriptions of the indexed images."""

    def __init__(self, root: Path) -> None:
        self._stack = ExitStack()
        with open_collection(root) as reader:
            self.recipe: Recipe = reader.recipe
            self.whiteners: Whiteners = {name: reader.index(name).whiteners for name in reader.manifest.indexes}
            self.descriptions = {
                record.id: reader.description(record) for record in reader.catalog.images(state=INDEXED)
            }
        self.preset = self.recipe.preset
        self._originals = list(self.descriptions.values())
        # kept: a test asks again for every generation
        self._vectors: dict[tuple[int, str, tuple[str, ...]], NDArray[np.float32]] = {}
        self._writer = self._stack.enter_context(open_for_writing(root, self.recipe))
        self.catalog = self._writer.catalog
        self._next = self.catalog.max_id() + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, count: int) -> list[int]:
        """Add `count` new images, each with its number as metadata, and return their ids."""
        numbers = range(self._next, self._next + count)
        self._next += count
        made = [perturbed(self._originals[number % len(self._originals)], number) for number in numbers]
        uris = [f"file:///made/{number:06d}.jpg" for number in numbers]
        hashes = [f"{number:064x}" for number in numbers]
        outcomes = [
            Outcome(Source(uri, 10, 1), NewImage(content_hash, 10, 640, 480, "image/jpeg", row))
            for row, (uri, content_hash) in enumerate(zip(uris, hashes, strict=True))
        ]
        self._writer.append(outcomes, made)
        self.catalog.set_metadata("file", {uri: metadata(number) for uri, number in zip(uris, numbers, strict=True)})
        ids = [self.catalog.id_of_content(content_hash) or 0 for content_hash in hashes]
        self.descriptions |= dict(zip(ids, made, strict=True))
        return ids

    def remove(self, ids: Iterable[int]) -> None:
        """Remove images."""
        gone = list(ids)
        self.catalog.remove(gone)
        for identifier in gone:
            del self.descriptions[identifier]

    def rebuild(self, descriptors: tuple[str, ...], index_factory: str = "Flat") -> None:
        """Publish the indexed images with these descriptors only, now and later."""
        self.recipe = self.recipe.derived_as(descriptors, self.preset, index_factory)
        self.whiteners = {name: self.whiteners[name] for name in descriptors}
        publish(self._writer.layout, self.catalog, self.recipe, self.whiteners, from_scratch=True)

    def publish(self) -> Manifest:
        """Publish the indexed images as the next generation."""
        published = publish(self._writer.layout, self.catalog, self.recipe, self.whiteners)
        assert published.is_new
        return published.manifest

    def vectors(self, descriptor: str) -> dict[int, NDArray[np.float32]]:
        """Return the vector of each image, computed from its description without an index."""
        whiteners = self.whiteners[descriptor]
        fingerprints = tuple(whitener.fingerprint for whitener in whiteners)
        keys = {identifier: (identifier, descriptor, fingerprints) for identifier in self.descriptions}
        for identifier, key in keys.items():
            if key not in self._vectors:
                method = find_descriptor(descriptor, self.preset)
                self._vectors[key] = method.describe(self.descriptions[identifier], whiteners)
        return {identifier: self._vectors[key] for identifier, key in keys.items()}


def publish_collection(collection: CollectionAddress) -> Manifest:
    """Publish the current catalog as the next generation, unless nothing changed; return the live generation.

    Raises CollectionNotFound, or CollectionLocked if another process writes to the collection.
    """
    with open_for_writing(collection) as writer:
        return publish_changes(writer)


def metadata(number: int) -> dict[str, object]:
    """Return the metadata of the image with this number."""
    return {
        "number": number,
        "label": "boat" if number % 3 == 0 else "tree",
        "taken_time": f"2024-01-{1 + number % 28:02}T12:00:00Z",
        "place": {"city": "Zürich" if number % 5 == 0 else "Bern"},
    }
