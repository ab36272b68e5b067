"""Make the next generation: the last one's vectors, less those of images that went, plus those of images that came.

Vectors are always derived from shards, never handed over in memory: a run that was killed and one that was not publish
the same.
"""

import importlib.metadata
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from indexer import whitening
from indexer.catalog import Catalog
from indexer.collection.layout import Layout, Recipe
from indexer.collection.manifest import IndexEntry, Manifest
from indexer.collection.shards import read_descriptions
from indexer.describe import Description
from indexer.files import sha256_of, sync, write_text
from indexer.methods import find_method
from indexer.vectors import FACTORY, VectorIndex
from indexer.whitening import Whitener

GENERATIONS_KEPT = 2  # the live one, and the one that a server may still have open
_READ_AT_ONCE = 1024
_LIBRARIES = ("whatwhere", "torch", "numpy", "faiss-cpu", "faiss-gpu", "scikit-learn", "Pillow")

log = logging.getLogger(__name__)
# descriptor → the whiteners of its parts
Whiteners: TypeAlias = Mapping[str, Sequence[Whitener]]


def publish(layout: Layout, catalog: Catalog, recipe: Recipe, whiteners: Whiteners) -> Manifest | None:
    """Publish a generation of all indexed images with an index for each descriptor; None when nothing changed."""
    number = layout.current_number()
    previous = None if number is None else Manifest.load(layout.generation(number))
    live = catalog.indexed_ids()
    indexes = {name: _previous_index(layout, previous, name, parts) for name, parts in whiteners.items()}
    if previous is not None and _is_current(previous, whiteners, indexes, live):
        catalog.record_generation(previous.number, previous.image_count)  # unless a kill came between, it was
        return None
    for name, index in indexes.items():
        index.remove(np.setdiff1d(index.ids, live))
        vector = partial(find_method(name, recipe.preset).describe, whiteners=whiteners[name])
        _add_missing(layout, catalog, index, live, vector)
    manifest = _write_generation(layout, catalog, recipe, whiteners, indexes, (number or 0) + 1)
    catalog.record_generation(manifest.number, manifest.image_count)
    _remove_old_generations(layout, manifest.number)
    log.info("published generation=%d images=%d", manifest.number, manifest.image_count)
    return manifest


def _is_current(
    previous: Manifest,
    whiteners: Whiteners,
    indexes: Mapping[str, VectorIndex],
    live: NDArray[np.int64],
) -> bool:
    """Tell whether the live generation already holds these images, through these whiteners."""
    used = {name: entry.whiteners for name, entry in previous.indexes.items()}
    asked = {name: _fingerprints(parts) for name, parts in whiteners.items()}
    return used == asked and all(np.array_equal(np.sort(index.ids), live) for index in indexes.values())


def _fingerprints(whiteners: Sequence[Whitener]) -> tuple[str, ...]:
    return tuple(whitener.fingerprint for whitener in whiteners)


def _previous_index(layout: Layout, previous: Manifest | None, name: str, whiteners: Sequence[Whitener]) -> VectorIndex:
    """Return the last generation's vectors where they went through these whiteners, else an empty index."""
    entry = previous.indexes.get(name) if previous is not None else None
    if previous is None or entry is None or (entry.whiteners, entry.factory) != (_fingerprints(whiteners), FACTORY):
        return VectorIndex.create(sum(whitener.dimensions for whitener in whiteners))
    return VectorIndex.open(layout.generation(previous.number) / entry.file_name)


def _add_missing(
    layout: Layout,
    catalog: Catalog,
    index: VectorIndex,
    live: NDArray[np.int64],
    vector: Callable[[Description], NDArray[np.float32]],
) -> None:
    missing = np.setdiff1d(live, index.ids)
    for start in range(0, len(missing), _READ_AT_ONCE):
        ids, vectors = [], []
        for identifier, description in _descriptions(layout, catalog, missing[start : start + _READ_AT_ONCE].tolist()):
            ids.append(identifier)
            vectors.append(vector(description))
        index.add(np.array(ids, dtype=np.int64), np.stack(vectors))


def _descriptions(layout: Layout, catalog: Catalog, ids: list[int]) -> Iterator[tuple[int, Description]]:
    for file_name, places in groupby(catalog.places(ids), key=itemgetter(1)):
        identifiers, _, rows = zip(*places, strict=True)
        yield from zip(identifiers, read_descriptions(layout.shards / file_name, rows), strict=True)


def _write_generation(
    layout: Layout,
    catalog: Catalog,
    recipe: Recipe,
    whiteners: Whiteners,
    indexes: Mapping[str, VectorIndex],
    number: int,
) -> Manifest:
    """Write everything beside, rename the folder, then let CURRENT name it."""
    for whitener in chain.from_iterable(whiteners.values()):
        path = layout.whitener(whitener.fingerprint)
        if not path.is_file():
            whitening.save(whitener, path)
    folder = layout.generation(number).with_suffix(".tmp")
    for leftover in (folder, layout.generation(number)):  # of a run that was killed before CURRENT named it
        shutil.rmtree(leftover, ignore_errors=True)
    folder.mkdir()
    entries = {}
    for name, index in indexes.items():
        path = folder / f"{name}.faiss"
        index.save(path)
        entries[name] = IndexEntry(
            file_name=path.name,
            factory=FACTORY,
            dimensions=index.dimensions,
            byte_count=path.stat().st_size,
            sha256=sha256_of(path),
            whiteners=_fingerprints(whiteners[name]),
        )
    manifest = Manifest(
        number=number,
        recipe=recipe,
        image_count=max(map(len, indexes.values())),
        indexes=entries,
        shards=tuple(shard.file_name for shard in catalog.shards()),
        libraries=_library_versions(),
        created_at=datetime.now(UTC),
    )
    manifest.save(folder)
    folder.rename(layout.generation(number))
    sync(layout.generations)
    write_text(layout.current, f"{number:06d}\n")
    return manifest


def _library_versions() -> dict[str, str]:
    installed = {dist.name.lower(): dist.version for dist in importlib.metadata.distributions()}
    return {name: installed[name.lower()] for name in _LIBRARIES if name.lower() in installed}


def _remove_old_generations(layout: Layout, live: int) -> None:
    for folder in layout.generations.iterdir():
        number = folder.name.partition(".")[0]
        if number.isdigit() and not live - GENERATIONS_KEPT < int(number) <= live:
            shutil.rmtree(folder, ignore_errors=True)
