"""Verify a collection: every checksum, count and reference; each fault has a remedy."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.manifest import Manifest, ids_sha256, read_facts, read_ids, read_removed
from whatwhere.indexer.collection.reader import generation_of
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.segments import check_segment, open_segment, stored_descriptions
from whatwhere.indexer.collection.shards import collection_of
from whatwhere.indexer.collection.stores import catalog_of, open_catalog
from whatwhere.indexer.collection.vector_stores import store_to_read
from whatwhere.indexer.collection.whiteners import stored_whitener, stored_whiteners
from whatwhere.indexer.collection.writer import not_being_written
from whatwhere.indexer.errors import CollectionCorrupt, CollectionNotFound
from whatwhere.indexer.storage.files import sha256_of
from whatwhere.indexer.storage.user_folders import temporary_folder
from whatwhere.indexer.vectors.factories import is_lossless
from whatwhere.indexer.vectors.store import Index

# Minimum cosine of a stored vector and the one derived again: of a compressed index, and with rounding only.
COMPRESSED_COSINE = 0.9
LOSSLESS_COSINE = 0.9999
_DERIVED_AT_ONCE = 1024


class Part(StrEnum):
    """The damaged part of a collection."""

    RECIPE = "recipe"
    CATALOG = "catalog"
    SHARD = "shard"
    GENERATION = "generation"


MENDED_BY = {
    Part.RECIPE: "--repair writes it again from a generation's manifest",
    Part.CATALOG: "--repair rebuilds its indexes; other faults need a backup",
    Part.SHARD: "--repair describes its images again from their files",
    Part.GENERATION: "--repair derives a new generation from the shards",
}


@dataclass(frozen=True)
class Fault:
    """A fault in one file, whose name is relative to the collection's directory."""

    part: Part
    file: str
    problem: str

    @property
    def repair(self) -> str:
        """The remedy."""
        return MENDED_BY[self.part]


def verify_collection(root: CollectionAddress, deep: bool = False) -> list[Fault]:
    """Verify all data of a collection and return its faults; `deep` also derives the vectors again.

    Leftovers of a killed run are not faults: the next run cleans them up. Raises CollectionNotFound, CollectionMismatch
    if another version made the collection, CollectionLocked if a process writes to it.
    """
    with _as_written(Layout.at(root)) as layout, not_being_written(layout):
        faults = [*_of_recipe(layout)]
        if _is_only_begun(layout):
            return faults
        catalogued = [*_of_catalog(layout)]
        faults += catalogued
        if not catalogued:
            with open_catalog(layout) as catalog:
                faults += _of_shards(layout, catalog)
                faults += _of_generation(layout, catalog)
                if deep and not faults:
                    faults += _of_vectors(layout, catalog)
        return faults


@contextmanager
def _as_written(layout: Layout) -> Iterator[Layout]:
    """Give the layout of an existing collection, without cached files of an object store."""
    with ExitStack() as stack:
        if layout.objects is not None:
            folder = stack.enter_context(TemporaryDirectory(prefix="whatwhere-", dir=temporary_folder()))
            layout = replace(layout, root=Path(folder))
        if not any(layout.fetch(path).exists() for path in (layout.recipe, layout.catalog, layout.current)):
            Recipe.load(layout)  # raises CollectionNotFound
        yield layout


def _is_only_begun(layout: Layout) -> bool:
    """Tell whether the first run of the collection was killed before it created the catalog."""
    kept = [*layout.names(layout.shards), *layout.names(layout.generations)]
    if kept or layout.current.exists():
        return False
    try:
        open_catalog(layout).close()
    except CollectionCorrupt:
        return True
    return False


def _of_recipe(layout: Layout) -> Iterator[Fault]:
    try:
        Recipe.load(layout)
    except (CollectionCorrupt, CollectionNotFound) as error:
        missing = isinstance(error, CollectionNotFound)
        yield Fault(Part.RECIPE, layout.recipe.name, "missing" if missing else str(error))


def _of_catalog(layout: Layout) -> Iterator[Fault]:
    name = _catalog_name(layout)
    try:
        with open_catalog(layout) as catalog:
            yield from (Fault(Part.CATALOG, name, problem) for problem in catalog.check())
    except CollectionCorrupt as error:
        yield Fault(Part.CATALOG, name, str(error))


def _catalog_name(layout: Layout) -> str:
    """Return the file name of the catalog, or its URL."""
    catalog = catalog_of(layout)
    return catalog.name if isinstance(catalog, Path) else catalog


def _of_shards(layout: Layout, catalog: Catalog) -> Iterator[Fault]:
    identity = Identity.of(layout)
    for shard in catalog.shards():
        path = layout.fetch(layout.shards / shard.file_name)
        name = str(path.relative_to(layout.root))
        if not path.is_file():
            yield Fault(Part.SHARD, name, "missing")
        elif not identity.owns(found := collection_of(path)):
            yield Fault(Part.SHARD, name, f"belongs to another collection ({found})")
        elif sha256_of(path) != shard.sha256:
            yield Fault(Part.SHARD, name, "does not match its checksum")


def _of_generation(layout: Layout, catalog: Catalog) -> Iterator[Fault]:
    try:
        manifest = Manifest.live(layout)
    except CollectionCorrupt as error:
        yield Fault(Part.GENERATION, layout.current.name, str(error))
        return
    recorded = catalog.last_generation()
    if manifest is None or manifest.number < recorded:
        if recorded:
            problem = f"generation {recorded} was published, but CURRENT names {manifest and manifest.number}"
            yield Fault(Part.GENERATION, layout.current.name, problem)
        return
    if manifest.max_image_id > catalog.max_id():
        problem = (
            f"ends at images/{catalog.max_id()}, but generation {manifest.number} at images/{manifest.max_image_id}"
        )
        yield Fault(Part.CATALOG, _catalog_name(layout), problem)
    yield from _of_recipes(layout, manifest)
    faults = [*_of_files(layout, manifest)]
    yield from faults or _of_ids(layout, manifest)


def _of_recipes(layout: Layout, manifest: Manifest) -> Iterator[Fault]:
    try:
        if not Recipe.load(layout).describes_as(manifest.recipe):
            yield Fault(Part.RECIPE, layout.recipe.name, f"does not match generation {manifest.number}")
    except (CollectionCorrupt, CollectionNotFound):
        return  # reported by `_of_recipe`


def _of_files(layout: Layout, manifest: Manifest) -> Iterator[Fault]:
    """Yield the faults of the files of a generation, one per file."""
    folder = layout.fetch_folder(layout.generation(manifest.number))
    name = str(folder.relative_to(layout.root))
    yield from _fault_of(name, read_removed, folder, manifest.removed_sha256)
    if manifest.is_remote:
        yield from _fault_of(name, read_ids, folder, manifest.ids_sha256)
        yield from _fault_of(name, read_facts, folder, manifest.facts_sha256)
    entries = manifest.indexes.values()
    for segment in dict.fromkeys(segment for entry in entries for segment in entry.segments):
        yield from _fault_of(f"{layout.segments.name}/{segment.file_name}", check_segment, layout, segment)
    for fingerprint in dict.fromkeys(fingerprint for entry in entries for fingerprint in entry.whiteners):
        yield from _fault_of(f"{layout.whiteners.name}/{fingerprint}.safetensors", stored_whitener, layout, fingerprint)


def _fault_of(file: str, check: Callable[..., object], *arguments: object) -> Iterator[Fault]:
    try:
        check(*arguments)
    except CollectionCorrupt as error:
        yield Fault(Part.GENERATION, file, str(error))


def _of_ids(layout: Layout, manifest: Manifest) -> Iterator[Fault]:
    for name in manifest.indexes:
        try:
            same = ids_sha256(_index(layout, manifest, name).ids) == manifest.ids_sha256
        except CollectionCorrupt as error:  # of a remote store: files were verified before
            yield Fault(Part.GENERATION, name, str(error))
            continue
        if not same:
            yield Fault(Part.GENERATION, name, f"does not have the images of generation {manifest.number}")


def _index(layout: Layout, manifest: Manifest, name: str) -> Index:
    generation = generation_of(layout.fetch_folder(layout.generation(manifest.number)), manifest)
    held = manifest.indexes[name].held
    compared = {segment.sha256: open_segment(layout, segment) for segment in held.segments}  # verified by `_of_files`
    return store_to_read(layout, manifest, compared).open(held, generation)


def _of_vectors(layout: Layout, catalog: Catalog) -> Iterator[Fault]:
    """Yield a fault for each vector that differs from the one derived from its shard."""
    # torch takes seconds to import, and only --deep needs it
    from whatwhere.indexer.features.descriptors import find_descriptor  # noqa: PLC0415

    manifest = Manifest.live(layout)
    if manifest is None:
        return
    for name, entry in manifest.indexes.items():
        index = _index(layout, manifest, name)
        method, whiteners = find_descriptor(name, manifest.recipe.preset), stored_whiteners(layout, entry)
        lossless = all(is_lossless(segment.factory) for segment in entry.segments)
        least = LOSSLESS_COSINE if lossless else COMPRESSED_COSINE
        live = np.intersect1d(index.ids, catalog.indexed_ids(), assume_unique=True)
        for ids in batched(live.tolist(), _DERIVED_AT_ONCE):
            differing = [
                image_id
                for image_id, description in stored_descriptions(layout, catalog, ids)
                if method.describe(description, whiteners) @ index.vector(image_id) < least
            ]
            for image_id in differing:
                yield Fault(
                    Part.GENERATION, name, f"images/{image_id}: the vector differs from the one derived from its shard"
                )
