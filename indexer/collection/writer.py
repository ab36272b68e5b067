"""Open a collection for writing: one process at a time, made when it is not there."""

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import Outcome, ShardRecord
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.sealed import is_sealed
from whatwhere.indexer.collection.shards import write_shard
from whatwhere.indexer.collection.stores import Stores, open_catalog
from whatwhere.indexer.errors import CollectionCorrupt, CollectionLocked, CollectionNotFound, CollectionNotWritable
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.storage.files import sha256_of, sync

# what the system says of a full disk, a read-only one, missing rights, a failing one
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@dataclass(frozen=True)
class CollectionWriter:
    """A collection that this process holds the lock of."""

    layout: Layout
    recipe: Recipe
    catalog: Catalog

    def append(self, outcomes: Sequence[Outcome], descriptions: Sequence[Description]) -> None:
        """Keep a chunk for good: first the shard, then, in one transaction, all that points to it."""
        shard = self.write_shard(descriptions) if descriptions else None
        self.catalog.record_chunk(outcomes, shard)

    def write_shard(self, descriptions: Sequence[Description], *, ahead: int = 0) -> ShardRecord:
        """Write a shard that the catalogue does not name yet, `ahead` others were written before it."""
        return write_shard_file(self.layout, self._next_shard(ahead), descriptions)

    def append_arrived(self, outcomes: Sequence[Outcome], shard: ShardRecord | None) -> None:
        """Keep a chunk whose shard a worker wrote to `Layout.arriving`: it takes its place before it is recorded."""
        if shard is not None:
            path = self._next_shard()
            self.layout.move(self.layout.arriving / shard.file_name, path)
            shard = replace(shard, file_name=path.name)
        self.catalog.record_chunk(outcomes, shard)

    def _next_shard(self, ahead: int = 0) -> Path:
        # The name follows the last one recorded, so that a shard of a killed run, which none records, is overwritten.
        number = _last_number(self.catalog) + 1 + ahead
        return self.layout.shards / f"{number:08d}.safetensors"


def write_shard_file(layout: Layout, path: Path, descriptions: Sequence[Description]) -> ShardRecord:
    """Write a shard to `path`, never half, and return what is to be recorded of it."""
    write_shard(path, descriptions)
    layout.keep(path)
    return ShardRecord(path.name, len(descriptions), path.stat().st_size, sha256_of(path))


def _last_number(catalog: Catalog) -> int:
    return max((int(Path(shard.file_name).stem) for shard in catalog.shards()), default=0)


@contextmanager
def open_for_writing(
    address: CollectionAddress, recipe: Recipe | None = None, stores: Stores | None = None
) -> Iterator[CollectionWriter]:
    """Lock and open the collection at `address`, made by `recipe` when it is new; without one it must be there.

    A collection of an older version is brought to this one's catalogue. Raises CollectionMismatch when it was made by
    another recipe or with other `stores`, CollectionLocked when another process writes to it, CollectionNotFound where
    there is none, CollectionCorrupt where what must be read is damaged.
    """
    layout = Layout.at(address)
    if recipe is None:
        Recipe.load(layout)
    used_stores = (stores or Stores()).settled(layout, is_new=current_recipe(layout) is None)
    _make_folders(layout)
    with _write_errors_named(layout), ExitStack() as held:
        catalog = _hold(layout, used_stores, held)
        used = _settled(layout, recipe, used_stores)
        sync(layout.root)
        catalog = catalog or held.enter_context(Catalog.create(layout.catalog))
        _refuse_older_catalog(layout, catalog)
        yield CollectionWriter(layout, used, catalog)


def _hold(layout: Layout, stores: Stores, held: ExitStack) -> Catalog | None:
    """Take the writer's lock, until `held` ends: the catalogue's own where it has one, else the directory's.

    The catalogue is returned where it had to be opened for that. A SQLite file is made only after what says that the
    collection is there: a run killed in between has made nothing that a later one could take for a lost catalogue.
    """
    if stores.catalog is None:
        held.enter_context(_locked(layout))
        return None
    catalog = held.enter_context(Catalog.create(stores.catalog))
    held.enter_context(catalog.alone())
    return catalog


def _settled(layout: Layout, wanted: Recipe | None, stores: Stores) -> Recipe:
    """Return the collection's recipe, that is `wanted` for a new one."""
    own = current_recipe(layout)
    if own is None:
        assert wanted is not None  # a collection that must be there was found
        stores.save(layout)  # first: whoever finds the recipe takes the stores for settled
        wanted.save(layout)
        return wanted
    own.require_same(wanted or own, layout)
    if stores.catalog is None:
        _refuse_lost_catalog(layout)
    if not is_sealed(layout.recipe):
        Recipe.load(layout).save(layout)  # an older version wrote it
    return own


@contextmanager
def open_for_repair(address: CollectionAddress) -> Iterator[CollectionWriter]:
    """Lock and open a collection whose live generation, or recipe, may be damaged; its catalogue must be sound.

    The recipe is that of the newest manifest that can be read, and is written again where it cannot be.
    """
    layout = Layout.at(address)
    _make_folders(layout)
    with _write_errors_named(layout), ExitStack() as held:
        catalog = _hold(layout, Stores.of(layout), held)
        recipe = _sound_recipe(layout)
        catalog = catalog or held.enter_context(Catalog.create(layout.catalog))
        yield CollectionWriter(layout, recipe, catalog)


def _sound_recipe(layout: Layout) -> Recipe:
    manifests = []
    for number in layout.generation_numbers():
        with suppress(CollectionCorrupt):
            manifests.append(Manifest.load(layout.fetch_folder(layout.generation(number))))
    if not manifests:
        return Recipe.load(layout)
    newest = manifests[-1].recipe
    try:
        sound = Recipe.load(layout).describes_as(newest)
    except (CollectionCorrupt, CollectionNotFound):
        sound = False
    if not sound:
        newest.save(layout)
    return newest


def current_recipe(layout: Layout) -> Recipe | None:
    """Return the recipe that the live generation was made by, or the next will be; None for a new collection.

    Raises CollectionCorrupt, CollectionMismatch (made by a newer version).
    """
    try:
        made_by = Recipe.load(layout)
    except CollectionNotFound:
        return None
    live = Manifest.live(layout)
    return made_by if live is None else live.recipe


def _make_folders(layout: Layout) -> None:
    for folder in (layout.root, layout.shards, layout.segments, layout.generations, layout.whiteners):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CollectionNotWritable(
                f"{folder} cannot be made ({error.strerror}): give a directory that you may write to",
                field="collection",
            ) from error


def _refuse_lost_catalog(layout: Layout) -> None:
    """Raise CollectionCorrupt where a generation was published and the catalogue is gone: ids would begin anew."""
    if layout.current.exists() and not layout.catalog.is_file():
        raise CollectionCorrupt(f"{layout.catalog} is missing: restore it from a backup, or index into a new directory")


def _refuse_older_catalog(layout: Layout, catalog: Catalog) -> None:
    """Raise CollectionCorrupt where the catalogue lacks images of the live generation: it would give out ids again."""
    live = Manifest.live(layout)
    if live is not None and live.max_image_id > catalog.max_id():
        raise CollectionCorrupt(
            f"the catalogue of {layout} is older than generation {live.number}, it ends at images/{catalog.max_id()} "
            f"and not at images/{live.max_image_id}: restore the newer catalogue, or index into a new directory"
        )


@contextmanager
def _write_errors_named(layout: Layout) -> Iterator[None]:
    """Raise CollectionNotWritable where the system refuses to write: a full disk, a read-only one, missing rights."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        name = "" if error.filename is None else Path(os.fsdecode(error.filename)).name
        place = f"{name.removeprefix('.').removesuffix('.tmp')}: " if name else ""
        raise CollectionNotWritable(
            f"{layout} cannot be written ({place}{error.strerror}): make room on the disk or give the "
            "right to write to it, then run again; what was finished before is kept"
        ) from error


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Hold the writer's lock, which the system takes back when the process ends, however it ends."""
    with layout.lock.open("a+") as file:
        _lock(layout, file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def not_being_written(layout: Layout) -> Iterator[None]:
    """Keep writers away while a collection is compared with itself; CollectionLocked where one is at work."""
    if Stores.of(layout).catalog is not None:
        with open_catalog(layout) as catalog, catalog.not_being_written():
            yield
        return
    try:
        file = layout.lock.open()
    except FileNotFoundError:  # copied without its lock: nobody writes to it
        yield
        return
    with file:
        _lock(layout, file, fcntl.LOCK_SH)
        yield


def _lock(layout: Layout, file: TextIO, kind: int) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip()
        raise CollectionLocked(
            f"{layout} is being {f'written to by process {holder}' if holder else 'verified'}: "
            "wait for that to end, then run again"
        ) from error
