"""Copy a collection to another place or other stores, with the same ids and the same search results.

Immutable files are copied first, then the rows of the catalog in groups, then the generation; at the end the copy is
verified. A copy that was interrupted is continued by the next one.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.transfer import TABLES
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import CollectionAddress, Current, Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.stores import Stores, open_catalog
from whatwhere.indexer.collection.whiteners import find_whiteners
from whatwhere.indexer.collection.writer import CollectionWriter, current_recipe, not_being_written, open_for_writing
from whatwhere.indexer.errors import CollectionCorrupt, CollectionMismatch, CollectionNotFound
from whatwhere.indexer.maintenance.verify import verify_collection
from whatwhere.indexer.pipeline.loading import map_ahead
from whatwhere.indexer.storage.files import sha256_of, sync, write_durably

_AT_ONCE = 8  # files at once: an object store needs some hundredths of a second for each
_ROWS_AT_ONCE = 2000

OnProgress: TypeAlias = Callable[[str, int, int], None]  # (stage, done, total): files or rows


@dataclass(frozen=True)
class Copied:
    """Contents of the target."""

    images: int
    shards: int
    generation: int


def copy_collection(
    source: CollectionAddress,
    target: CollectionAddress,
    stores: Stores | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> Copied:
    """Copy the collection at `source` to `target`, which is new or an interrupted copy, and verify the copy.

    The source is only read, and locked against writers meanwhile. Raises CollectionMismatch if `target` contains
    another collection, CollectionCorrupt if a file of the source or of the copy is damaged, CollectionNotFound if the
    source has no generation, and the errors of opening both.
    """
    here = Layout.at(source)
    recipe = current_recipe(here)
    live = Manifest.live(here) if recipe is not None else None
    if recipe is None or live is None:
        raise CollectionNotFound(f"{here} has no published generation to copy: run `whatwhere index` first")
    with (
        not_being_written(here),
        open_catalog(here) as catalog,
        open_for_writing(target, recipe, stores, copied_from=Identity.of(here)) as writer,
    ):
        _Copy(here, catalog, writer, on_progress).run(recipe, live)
        published = Manifest.live(writer.layout)
        assert published is not None
        shards = len(writer.catalog.shards())
    faults = verify_collection(target)
    if faults:
        raise CollectionCorrupt(f"{target} is damaged ({faults[0].file}: {faults[0].problem}): copy again")
    return Copied(published.image_count, shards, published.number)


@dataclass(frozen=True)
class _File:
    path: Path  # at the source
    byte_count: int = 0
    sha256: str = ""


class _Copy:
    """One copy: from a source that is locked against writers to an open target."""

    def __init__(self, here: Layout, catalog: Catalog, writer: CollectionWriter, on_progress: OnProgress) -> None:
        self._here = here
        self._catalog = catalog
        self._writer = writer
        self._there = writer.layout
        self._on_progress = on_progress

    def run(self, recipe: Recipe, live: Manifest) -> None:
        """Copy everything that the target lacks."""
        if self._is_done(live):
            return
        in_files = not any(Stores.of(layout).vectors for layout in (self._here, self._there))
        self._copy_files([*self._files(live, in_files=in_files)])
        self._copy_rows()
        if in_files:
            self._copy_generation(live)
        else:
            publish(self._there, self._writer.catalog, recipe, find_whiteners(self._here, recipe))

    def _is_done(self, live: Manifest) -> bool:
        """Tell whether the copy is complete. Raises CollectionMismatch if the target has other images."""
        theirs = Manifest.live(self._there)
        if theirs is None and self._writer.catalog.max_id() <= self._catalog.max_id():
            return False
        if theirs is not None and theirs.ids_sha256 == live.ids_sha256:
            return True
        raise CollectionMismatch(
            f"{self._there} contains other images than {self._here}: copy to a new place; a copy is made once, images "
            "that are indexed later are not transferred"
        )

    def _files(self, live: Manifest, *, in_files: bool) -> Iterator[_File]:
        """Yield the immutable files: shards, whiteners, and segments of the live generation."""
        for shard in self._catalog.shards():
            yield _File(self._here.shards / shard.file_name, shard.byte_count, shard.sha256)
        entries = live.indexes.values()
        for fingerprint in dict.fromkeys(fingerprint for entry in entries for fingerprint in entry.whiteners):
            yield _File(self._here.whitener(fingerprint))
        if in_files:
            for segment in dict.fromkeys(segment for entry in entries for segment in entry.segments):
                yield _File(self._here.segments / segment.file_name, segment.byte_count, segment.sha256)

    def _copy_files(self, files: Sequence[_File]) -> None:
        held = {folder: self._there.sizes(folder) for folder in {self._there_is(file.path).parent for file in files}}
        missing = [
            file for file in files if held[self._there_is(file.path).parent].get(file.path.name, -1) != file.byte_count
        ]
        with ThreadPoolExecutor(_AT_ONCE, "copy") as pool:
            copied = map_ahead(pool, self._copy_file, missing, ahead=2 * _AT_ONCE)
            for done, _ in enumerate(copied, len(files) - len(missing) + 1):
                self._on_progress("files", done, len(files))

    def _copy_rows(self) -> None:
        for table in TABLES:
            total = self._catalog.last_key(table)
            while rows := self._catalog.export_rows(table, self._writer.catalog.last_key(table), _ROWS_AT_ONCE):
                self._writer.catalog.import_rows(table, rows)
                self._on_progress(table, self._writer.catalog.last_key(table), total)

    def _copy_file(self, file: _File) -> None:
        path = self._here.fetch(file.path)
        if not path.is_file() or (file.sha256 and sha256_of(path) != file.sha256):
            raise CollectionCorrupt(
                f"{path.name} of {self._here} is missing or damaged: run `whatwhere verify --repair` there, then copy "
                "again"
            )
        target = self._there_is(file.path)
        write_durably(target, lambda temporary: shutil.copyfile(path, temporary))
        self._there.keep(target)

    def _there_is(self, path: Path) -> Path:
        return self._there.root / path.relative_to(self._here.root)

    def _copy_generation(self, live: Manifest) -> None:
        """Publish a copy of the generation under the same number."""
        folder = self._there.generation(live.number)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._here.fetch_folder(self._here.generation(live.number)), folder)
        for path in folder.iterdir():
            sync(path)
        sync(folder.parent)
        seal = replace(live, identity=self._writer.identity).save(folder)
        self._there.keep(folder)
        self._there.write_current(Current(live.number, seal))
