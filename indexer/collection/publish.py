"""Publish the next generation: the segments of the previous one, and a small segment with new vectors.

Vectors are always derived from shards, never passed in memory: a run that was killed and continued publishes the same
as one that was not.
"""

import importlib.metadata
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TypeAlias

import numpy as np

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Current, Layout
from whatwhere.indexer.collection.manifest import (
    FACTS_NAME,
    IDS_NAME,
    IndexEntry,
    Manifest,
    ids_sha256,
    write_array,
    write_removed,
)
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.segments import SegmentStore, open_segment
from whatwhere.indexer.collection.vector_stores import FactsKept, facts_by_id, store_to_write
from whatwhere.indexer.errors import CollectionCorrupt
from whatwhere.indexer.features import whitening
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.indexer.storage.files import sync
from whatwhere.indexer.vectors.arrays import Ids, Vectors
from whatwhere.indexer.vectors.store import Delta, Entry, VectorSource, VectorStore

GENERATIONS_KEPT = 2  # the live one, and the previous one, which a server may still be opening
_LIBRARIES = ("whatwhere", "torch", "numpy", "faiss-cpu", "faiss-gpu", "scikit-learn", "Pillow")

log = logging.getLogger(__name__)
# descriptor → the whiteners of its parts
Whiteners: TypeAlias = Mapping[str, Sequence[Whitener]]


@dataclass(frozen=True)
class Published:
    """The live generation after publishing, and whether it is a new one: it is not where nothing had changed."""

    manifest: Manifest
    is_new: bool


def publish(
    layout: Layout,
    catalog: Catalog,
    recipe: Recipe,
    whiteners: Whiteners,
    *,
    from_scratch: bool = False,
    merged: bool = False,
) -> Published:
    """Publish a generation of all indexed images with vectors for each descriptor, unless nothing changed.

    `from_scratch` derives every vector again and reuses nothing; then it raises InvalidRequest if the recipe's index
    factory cannot be trained on the vectors. `merged` writes one segment per descriptor.
    """
    layout.require_in_place()
    previous = None if from_scratch else Manifest.live(layout)
    live = catalog.indexed_ids()
    store = store_to_write(layout, recipe, from_scratch=from_scratch, merged=merged)
    facts = None if isinstance(store, SegmentStore) else FactsKept.of(catalog, live)
    held = {name: _taken_over(store, previous, recipe, name, parts) for name, parts in whiteners.items()}
    current = all(held.values()) and previous is not None and _is_current(previous, recipe, whiteners, live, facts)
    if previous is not None and current and not (merged and _segments(previous) > 1):
        catalog.record_generation(previous.number, previous.image_count)  # only missing after a kill at this point
        _remove_unused(layout, store)  # as above
        return Published(previous, is_new=False)
    number = _next_number(layout, catalog, from_scratch=from_scratch)
    change = _change(layout, previous, live, facts, number)
    indexes = {}
    for name, parts in whiteners.items():
        origin = VectorSource(
            name,
            sum(whitener.dimensions for whitener in parts),
            partial(_derived_vectors, layout, catalog, (name, recipe.preset), parts),
            partial(facts_by_id, catalog),
        )
        layout.require_in_place()
        written = store.write(origin, change, held[name])
        indexes[name] = IndexEntry(origin.dimensions, _fingerprints(parts), written.segments, written.remote)
    layout.require_in_place()
    _keep_whiteners(layout, whiteners)
    manifest = _write_generation(layout, recipe, indexes, live, number, facts)
    catalog.record_generation(manifest.number, manifest.image_count)
    _remove_unused(layout, store)
    log.info("published generation=%d images=%d", manifest.number, manifest.image_count)
    return Published(manifest, is_new=True)


def _derived_vectors(
    layout: Layout, catalog: Catalog, descriptor: tuple[str, str], whiteners: Sequence[Whitener], ids: Ids
) -> Iterator[Vectors]:
    """Yield the vectors of ids, derived with a descriptor (name, preset). Nothing but this needs torch here."""
    # torch takes seconds to import, and most removals and copies derive nothing
    from whatwhere.indexer.collection.derivation import derived_vectors  # noqa: PLC0415
    from whatwhere.indexer.features.descriptors import find_descriptor  # noqa: PLC0415

    describe = partial(find_descriptor(*descriptor).describe, whiteners=whiteners)
    return derived_vectors(layout, catalog, describe, ids)


def _taken_over(
    store: VectorStore, previous: Manifest | None, recipe: Recipe, name: str, whiteners: Sequence[Whitener]
) -> Entry | None:
    """Return the previous generation's entry in the store if it was derived in the same way."""
    if previous is None or name not in previous.indexes:
        return None
    entry = previous.indexes[name]
    theirs = (previous.recipe.preset, previous.recipe.index_factory, entry.whiteners)
    same = theirs == (recipe.preset, recipe.index_factory, _fingerprints(whiteners))
    return entry.held if same and store.knows(entry.held) else None


def _is_current(previous: Manifest, recipe: Recipe, whiteners: Whiteners, live: Ids, facts: FactsKept | None) -> bool:
    """Tell whether the live generation already has these images and facts, derived in the same way."""
    used = {name: entry.whiteners for name, entry in previous.indexes.items()}
    same = previous.recipe == recipe and previous.ids_sha256 == ids_sha256(live)
    asked = {name: _fingerprints(parts) for name, parts in whiteners.items()}
    return same and used == asked and previous.facts_sha256 == (facts.sha256 if facts else "")


def _segments(previous: Manifest) -> int:
    return max((len(entry.segments) for entry in previous.indexes.values()), default=0)


def _change(layout: Layout, previous: Manifest | None, live: Ids, facts: FactsKept | None, number: int) -> Delta:
    if facts is None:
        return Delta(number, live)
    known, altered = facts.altered(layout, previous, live)
    return Delta(number, live, previous.number if previous else 0, known, altered, facts.fit)


def _fingerprints(whiteners: Sequence[Whitener]) -> tuple[str, ...]:
    return tuple(whitener.fingerprint for whitener in whiteners)


def _next_number(layout: Layout, catalog: Catalog, *, from_scratch: bool) -> int:
    """Return the number after the live generation's, which may be unreadable if `from_scratch`."""
    recorded = catalog.last_generation()
    try:
        current = layout.current_number() or 0
    except CollectionCorrupt:
        if not from_scratch:
            raise
        current = max(layout.generation_numbers(), default=0)
    return max(current, recorded) + 1


def _keep_whiteners(layout: Layout, whiteners: Whiteners) -> None:
    for whitener in chain.from_iterable(whiteners.values()):
        path = layout.fetch(layout.whitener(whitener.fingerprint))
        if not whitening.holds(path, whitener.fingerprint):
            whitening.save(whitener, path)
            layout.keep(path)


def _write_generation(
    layout: Layout,
    recipe: Recipe,
    indexes: Mapping[str, IndexEntry],
    live: Ids,
    number: int,
    facts: FactsKept | None,
) -> Manifest:
    """Write everything to a temporary folder, rename the folder, then point CURRENT to it."""
    folder = layout.generation(number).with_suffix(".tmp")
    for leftover in (folder, layout.generation(number)):  # of a run that was killed before it wrote CURRENT
        layout.discard(leftover)
    folder.mkdir()
    if facts is not None:
        write_array(folder / IDS_NAME, live)
        write_array(folder / FACTS_NAME, facts.digests)
    manifest = Manifest(
        number=number,
        recipe=recipe,
        image_count=len(live),
        max_image_id=int(live[-1]) if len(live) else 0,
        ids_sha256=ids_sha256(live),
        indexes=dict(indexes),
        removed_sha256=write_removed(folder, _removed(layout, indexes, live)),
        libraries=_library_versions(),
        created_at=datetime.now(UTC),
        facts_sha256="" if facts is None else facts.sha256,
        identity=Identity.of(layout),
    )
    seal = manifest.save(folder)
    folder.rename(layout.generation(number))
    sync(layout.generations)
    layout.keep(layout.generation(number))
    layout.write_current(Current(number, seal))
    return manifest


def _removed(layout: Layout, indexes: Mapping[str, IndexEntry], live: Ids) -> Ids:
    """Return the ids in segments that are not live."""
    files = dict.fromkeys(segment for entry in indexes.values() for segment in entry.segments)
    gone = [np.setdiff1d(open_segment(layout, segment).ids, live) for segment in files]
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *gone]))


def _library_versions() -> dict[str, str]:
    installed = {}
    for name in _LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def _remove_unused(layout: Layout, store: VectorStore) -> None:
    """Delete all generations except the last ones, and the vectors and whiteners that only they used."""
    numbers = layout.generation_numbers()[-GENERATIONS_KEPT:]
    for name in layout.names(layout.generations):
        number = name.partition(".")[0]
        if number.isdigit() and int(number) not in numbers:
            layout.discard(layout.generations / name)
    kept = {number: _entries(layout, number) for number in numbers}
    held = {number: [entry.held for entry in entries] for number, entries in kept.items()}
    for one in (store, SegmentStore(layout)):  # earlier generations may have had their vectors in files
        one.forget(held)
    entries = chain.from_iterable(kept.values())
    used = {layout.whitener(print_).name for entry in entries for print_ in entry.whiteners}
    for name in layout.names(layout.whiteners):
        if name not in used:
            layout.discard(layout.whiteners / name)


def _entries(layout: Layout, number: int) -> Sequence[IndexEntry]:
    """Return the entries of a generation, none if its manifest is unreadable."""
    try:
        return [*Manifest.load(layout.fetch_folder(layout.generation(number))).indexes.values()]
    except CollectionCorrupt:
        return []
