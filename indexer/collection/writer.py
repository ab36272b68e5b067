"""Open a collection for writing: one process at a time, made when it is not there."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexer.catalog import Catalog, Outcome, ShardRecord
from indexer.collection.layout import Layout, Recipe
from indexer.collection.manifest import Manifest
from indexer.collection.shards import write_shard
from indexer.describe import Description
from indexer.errors import CollectionCorrupt, CollectionLocked, InvalidRequest
from indexer.files import sha256_of, sync


@dataclass(frozen=True)
class CollectionWriter:
    """A collection that this process holds the lock of."""

    layout: Layout
    recipe: Recipe
    catalog: Catalog

    def append(self, outcomes: Sequence[Outcome], descriptions: Sequence[Description]) -> None:
        """Keep a chunk for good: first the shard, then, in one transaction, all that points to it."""
        shard = self._write_shard(descriptions) if descriptions else None
        self.catalog.record_chunk(outcomes, shard)

    def _write_shard(self, descriptions: Sequence[Description]) -> ShardRecord:
        # The name follows the last one recorded, so that a shard of a killed run, which none records, is overwritten.
        recorded = self.catalog.shards()
        number = int(Path(recorded[-1].file_name).stem) + 1 if recorded else 1
        path = self.layout.shards / f"{number:08d}.safetensors"
        write_shard(path, descriptions)
        return ShardRecord(path.name, len(descriptions), path.stat().st_size, sha256_of(path))


@contextmanager
def open_for_writing(root: Path, recipe: Recipe) -> Iterator[CollectionWriter]:
    """Lock and open the collection at `root`, made by `recipe` when it is new.

    Raises CollectionMismatch when it was made by another recipe, CollectionLocked when another process writes to it.
    """
    layout = Layout(root)
    _make_folders(layout)
    with _locked(layout):
        if layout.recipe.is_file():
            Recipe.load(layout).require_same(recipe, root)
            _refuse_lost_catalogue(layout)
        else:
            recipe.save(layout)
        sync(root)
        with Catalog.create(layout.catalog) as catalog:
            _refuse_older_catalogue(layout, catalog)
            yield CollectionWriter(layout, recipe, catalog)


def _make_folders(layout: Layout) -> None:
    for folder in (layout.root, layout.shards, layout.generations, layout.whiteners):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequest(
                f"{folder} cannot be made ({error.strerror}): give a directory that you may write to",
                field="collection",
            ) from error


def _refuse_lost_catalogue(layout: Layout) -> None:
    """Raise CollectionCorrupt where a generation was published and the catalogue is gone: ids would begin anew."""
    if layout.current.exists() and not layout.catalog.is_file():
        raise CollectionCorrupt(f"{layout.catalog} is missing: restore it from a backup, or index into a new directory")


def _refuse_older_catalogue(layout: Layout, catalog: Catalog) -> None:
    """Raise CollectionCorrupt where the catalogue lacks shards of the live generation: it would give out ids again."""
    number = layout.current_number()
    if number is None:
        return
    unknown = set(Manifest.load(layout.generation(number)).shards) - {shard.file_name for shard in catalog.shards()}
    if unknown:
        raise CollectionCorrupt(
            f"{layout.catalog} is older than generation {number}, it lacks {len(unknown)} shards: restore the newer "
            "catalogue, or index into a new directory"
        )


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Hold the writer's lock, which the system takes back when the process ends, however it ends."""
    with layout.lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise CollectionLocked(
                f"{layout.root} is being written to by process {file.read().strip() or 'unknown'}: "
                "wait for it to end, then run again"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
