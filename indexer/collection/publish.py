"""Make the next generation: the last one's segments of vectors, and a small one of what has come since.

Vectors are always derived from shards, never handed over in memory: a run that was killed and one that was not publish
the same.
"""

import importlib.metadata
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TypeAlias

import numpy as np

from indexer import whitening
from indexer.catalog import Catalog
from indexer.collection.layout import Current, Layout
from indexer.collection.manifest import IndexEntry, Manifest, SegmentEntry, ids_sha256, write_removed
from indexer.collection.recipe import Recipe
from indexer.collection.segments import SegmentWriter, open_segment, plan_segments
from indexer.errors import CollectionCorrupt
from indexer.files import sync
from indexer.methods import find_method
from indexer.vectors import Ids
from indexer.whitening import Whitener

GENERATIONS_KEPT = 2  # the live one, and the one that a server may still be opening
_LIBRARIES = ("whatwhere", "torch", "numpy", "faiss-cpu", "faiss-gpu", "scikit-learn", "Pillow")

log = logging.getLogger(__name__)
# descriptor → the whiteners of its parts
Whiteners: TypeAlias = Mapping[str, Sequence[Whitener]]


def publish(
    layout: Layout,
    catalog: Catalog,
    recipe: Recipe,
    whiteners: Whiteners,
    *,
    anew: bool = False,
    merged: bool = False,
) -> Manifest | None:
    """Publish a generation of all indexed images with vectors for each descriptor; None when nothing changed.

    `anew` derives every vector again and takes nothing over; InvalidRequest where the recipe's factory cannot be
    trained on what there is. `merged` writes one segment for each descriptor.
    """
    previous = None if anew else Manifest.live(layout)
    live = catalog.indexed_ids()
    held = {name: _taken_over(previous, recipe, name, parts) for name, parts in whiteners.items()}
    asked = {name: _fingerprints(parts) for name, parts in whiteners.items()}
    if previous is not None and _is_current(previous, recipe, asked, live, merged=merged):
        catalog.record_generation(previous.number, previous.image_count)  # unless a kill came between, it was
        _remove_unused(layout)  # so too
        return None
    number = _next_number(layout, catalog, anew=anew)
    indexes = {}
    for name, parts in whiteners.items():
        describe = partial(find_method(name, recipe.preset).describe, whiteners=parts)
        dimensions = sum(whitener.dimensions for whitener in parts)
        prefix = f"{number:06d}.{name}"
        writer = SegmentWriter(layout, catalog, describe, dimensions, prefix, recipe.index_factory, strict=anew)
        with_ids = [(entry, open_segment(layout, entry).ids) for entry in held[name]]
        segments = writer.write_all(plan_segments(with_ids, live, merged=merged))
        indexes[name] = IndexEntry(dimensions, _fingerprints(parts), segments)
    _keep_whiteners(layout, whiteners)
    manifest = _write_generation(layout, recipe, indexes, live, number)
    catalog.record_generation(manifest.number, manifest.image_count)
    _remove_unused(layout)
    log.info("published generation=%d images=%d", manifest.number, manifest.image_count)
    return manifest


def _taken_over(
    previous: Manifest | None, recipe: Recipe, name: str, whiteners: Sequence[Whitener]
) -> tuple[SegmentEntry, ...]:
    """Return the last generation's segments where they were derived in the same way."""
    if previous is None or name not in previous.indexes:
        return ()
    entry = previous.indexes[name]
    theirs = (previous.recipe.preset, previous.recipe.index_factory, entry.whiteners)
    return entry.segments if theirs == (recipe.preset, recipe.index_factory, _fingerprints(whiteners)) else ()


def _is_current(
    previous: Manifest, recipe: Recipe, whiteners: Mapping[str, tuple[str, ...]], live: Ids, *, merged: bool
) -> bool:
    """Tell whether the live generation already holds these images, derived in this way."""
    used = {name: entry.whiteners for name, entry in previous.indexes.items()}
    segments = max((len(entry.segments) for entry in previous.indexes.values()), default=0)
    same = previous.recipe == recipe and previous.ids_sha256 == ids_sha256(live) and used == whiteners
    return same and not (merged and segments > 1)


def _fingerprints(whiteners: Sequence[Whitener]) -> tuple[str, ...]:
    return tuple(whitener.fingerprint for whitener in whiteners)


def _next_number(layout: Layout, catalog: Catalog, *, anew: bool) -> int:
    """Return the number after the live generation's; `anew` does not need to know that one."""
    recorded = catalog.last_generation()
    try:
        current = layout.current_number() or 0
    except CollectionCorrupt:
        if not anew:
            raise
        current = max(layout.generation_numbers(), default=0)
    return max(current, recorded) + 1


def _keep_whiteners(layout: Layout, whiteners: Whiteners) -> None:
    for whitener in chain.from_iterable(whiteners.values()):
        path = layout.whitener(whitener.fingerprint)
        if not whitening.holds(path, whitener.fingerprint):
            whitening.save(whitener, path)


def _write_generation(
    layout: Layout, recipe: Recipe, indexes: Mapping[str, IndexEntry], live: Ids, number: int
) -> Manifest:
    """Write everything beside, rename the folder, then let CURRENT name it."""
    folder = layout.generation(number).with_suffix(".tmp")
    for leftover in (folder, layout.generation(number)):  # of a run that was killed before CURRENT named it
        shutil.rmtree(leftover, ignore_errors=True)
    folder.mkdir()
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
    )
    seal = manifest.save(folder)
    folder.rename(layout.generation(number))
    sync(layout.generations)
    layout.write_current(Current(number, seal))
    return manifest


def _removed(layout: Layout, indexes: Mapping[str, IndexEntry], live: Ids) -> Ids:
    """Return the ids that segments hold and that are gone."""
    files = dict.fromkeys(segment for entry in indexes.values() for segment in entry.segments)
    gone = [np.setdiff1d(open_segment(layout, segment).ids, live) for segment in files]
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *gone]))


def _library_versions() -> dict[str, str]:
    installed = {}
    for name in _LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def _remove_unused(layout: Layout) -> None:
    """Remove all generations but the last ones, and the segments and whiteners that only those had."""
    kept = layout.generation_numbers()[-GENERATIONS_KEPT:]
    for folder in layout.generations.iterdir():
        name = folder.name.partition(".")[0]
        if name.isdigit() and int(name) not in kept:
            shutil.rmtree(folder, ignore_errors=True)
    used: set[str] = set()
    for number in kept:
        used |= _files_of(layout, number)
    for path in chain(layout.segments.iterdir(), layout.whiteners.iterdir()):
        if path.name not in used:
            path.unlink(missing_ok=True)


def _files_of(layout: Layout, number: int) -> set[str]:
    """Return the names of a generation's segments and whiteners; none where its manifest cannot be read any more."""
    try:
        entries = Manifest.load(layout.generation(number)).indexes.values()
    except CollectionCorrupt:
        return set()
    segments = {segment.file_name for entry in entries for segment in entry.segments}
    return segments | {layout.whitener(print_).name for entry in entries for print_ in entry.whiteners}
