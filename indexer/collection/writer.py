"""Open a collection for writing, one process at a time; create it if it does not exist."""

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import Outcome, ShardRecord
from whatwhere.indexer.collection.belonging import claim, require_own
from whatwhere.indexer.collection.identity import Identity, has_identity
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.shards import write_shard
from whatwhere.indexer.collection.stores import Stores, open_catalog, warn_of_network
from whatwhere.indexer.errors import CollectionCorrupt, CollectionLocked, CollectionNotFound, CollectionNotWritable
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.storage.files import file_id, sha256_of, sync
from whatwhere.indexer.storage.mounts import network_kind

# a full disk, a read-only one, missing permissions, an I/O error
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@dataclass(frozen=True)
class CollectionWriter:
    """A collection that is locked by this process."""

    layout: Layout
    recipe: Recipe
    catalog: Catalog
    identity: Identity

    def append(self, outcomes: Sequence[Outcome], descriptions: Sequence[Description]) -> None:
        """Record a chunk: first write its shard, then its rows in one transaction."""
        shard = self.write_shard(descriptions) if descriptions else None
        self.catalog.record_chunk(outcomes, shard)

    def write_shard(self, descriptions: Sequence[Description], *, ahead: int = 0) -> ShardRecord:
        """Write a shard that is not recorded yet, after `ahead` other unrecorded ones."""
        return write_shard_file(self.layout, self._next_shard(ahead), descriptions, self.identity)

    def append_arrived(self, outcomes: Sequence[Outcome], shard: ShardRecord | None) -> None:
        """Record a chunk whose shard a worker wrote to `Layout.arriving`; move the shard to its place first."""
        if shard is not None:
            self.layout.require_in_place()
            path = self._next_shard()
            self.layout.move(self.layout.arriving / shard.file_name, path)
            shard = replace(shard, file_name=path.name)
        self.catalog.record_chunk(outcomes, shard)

    def _next_shard(self, ahead: int = 0) -> Path:
        # The name follows the last recorded one, so that the unrecorded shard of a killed run is overwritten.
        number = _last_number(self.catalog) + 1 + ahead
        return self.layout.shards / f"{number:08d}.safetensors"


def write_shard_file(
    layout: Layout, path: Path, descriptions: Sequence[Description], identity: Identity
) -> ShardRecord:
    """Write a shard to `path`, atomically, and return its record for the catalog."""
    layout.require_in_place()
    write_shard(path, descriptions, identity.id)
    layout.keep(path)
    return ShardRecord(path.name, len(descriptions), path.stat().st_size, sha256_of(path))


def _last_number(catalog: Catalog) -> int:
    return max((int(Path(shard.file_name).stem) for shard in catalog.shards()), default=0)


@contextmanager
def open_for_writing(
    address: CollectionAddress,
    recipe: Recipe | None = None,
    stores: Stores | None = None,
    *,
    copied_from: Identity | None = None,
    adopting: bool = False,
) -> Iterator[CollectionWriter]:
    """Lock and open the collection at `address`; create it with `recipe` if it does not exist.

    The catalog of an older version is upgraded, and the collection gets an identity if it has none; `copied_from` is
    that of the original of a new copy. `adopting` accepts stores whose collection was elsewhere. Raises
    CollectionNotFound if the collection does not exist and `recipe` is None, CollectionMismatch if it has another
    recipe or other `stores`, or stores of another collection, CollectionLocked if another process writes to it,
    CollectionCorrupt if a file that must be read is damaged.
    """
    layout = Layout.at(address)
    if recipe is None:
        Recipe.load(layout)
    used_stores = (stores or Stores()).settled(layout, is_new=current_recipe(layout) is None)
    own = partial(require_own, layout, stores=used_stores, adopting=adopting)
    with _write_errors_named(layout), ExitStack() as held:
        if used_stores.catalog is None:
            _make_folders(layout)
        catalog = _hold(layout, used_stores, held, own)
        _make_folders(layout)
        layout = held.enter_context(_kept_in_place(layout))
        used = _settled(layout, recipe, used_stores, copied_from)
        sync(layout.root)
        warn_of_network(layout)
        catalog = catalog or held.enter_context(Catalog.create(layout.catalog, own))
        _refuse_older_catalog(layout, catalog)
        yield CollectionWriter(layout, used, catalog, _claimed(layout, catalog))


def _claimed(layout: Layout, catalog: Catalog) -> Identity:
    """Return the identity of a collection, and write it to the file and the catalog that lack it.

    The file is first: a catalog never belongs to a collection that does not know its id.
    """
    if not has_identity(layout):
        own, owner = Identity.of(layout), catalog.owner()
        if not own.id:
            own = Identity.new() if owner is None else Identity(owner.collection_id)
        Recipe.load(layout).save(layout, own)
    claim(layout, catalog)
    return Identity.of(layout)


def _hold(layout: Layout, stores: Stores, held: ExitStack, check: Callable[[Catalog], None]) -> Catalog | None:
    """Take the writer's lock until `held` ends: that of a PostgreSQL catalog, else that of the directory.

    Return the catalog if the lock needed it. A SQLite file is created later, after the recipe: a later run cannot
    mistake what a killed run left for a collection with a lost catalog.
    """
    if stores.catalog is None:
        held.enter_context(_locked(layout))
        return None
    catalog = held.enter_context(Catalog.create(stores.catalog, check))
    held.enter_context(catalog.alone())
    check(catalog)  # another new collection may have taken it since
    return catalog


def _settled(layout: Layout, wanted: Recipe | None, stores: Stores, copied_from: Identity | None) -> Recipe:
    """Return the collection's recipe; `wanted` is saved as that of a new collection."""
    own = current_recipe(layout)
    if own is None:
        assert wanted is not None  # checked before: only a new collection has no recipe
        stores.save(layout)  # first: a process that finds the recipe relies on the stores
        known = Identity.of(layout)
        wanted.save(layout, known if known.id else Identity.new(copied_from))
        return wanted
    own.require_same(wanted or own, layout)
    if stores.catalog is None:
        _refuse_lost_catalog(layout)
    return own


@contextmanager
def open_for_repair(address: CollectionAddress) -> Iterator[CollectionWriter]:
    """Lock and open a collection whose live generation or recipe may be damaged; its catalog must be sound.

    The recipe is that of the newest readable manifest; it replaces a damaged recipe file.
    """
    layout = Layout.at(address)
    _make_folders(layout)
    stores = Stores.of(layout)
    own = partial(require_own, layout, stores=stores)
    with _write_errors_named(layout), ExitStack() as held:
        catalog = _hold(layout, stores, held, own)
        layout = held.enter_context(_kept_in_place(layout))
        recipe = _sound_recipe(layout)
        catalog = catalog or held.enter_context(Catalog.create(layout.catalog, own))
        yield CollectionWriter(layout, recipe, catalog, _claimed(layout, catalog))


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
    """Return the recipe of the live generation, or of the first one to come; None for a new collection.

    Raises CollectionCorrupt, or CollectionMismatch if a newer version made it.
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
                f"{folder} cannot be created ({error.strerror}): choose a writable directory",
                field="collection",
            ) from error


def _refuse_lost_catalog(layout: Layout) -> None:
    """Raise CollectionCorrupt if a generation exists but the catalog is missing: a new one would reuse ids."""
    if layout.current.exists() and not layout.catalog.is_file():
        raise CollectionCorrupt(f"{layout.catalog} is missing: restore it from a backup, or index into a new directory")


def _refuse_older_catalog(layout: Layout, catalog: Catalog) -> None:
    """Raise CollectionCorrupt if the catalog lacks images of the live generation: it would reuse their ids."""
    live = Manifest.live(layout)
    if live is not None and live.max_image_id > catalog.max_id():
        raise CollectionCorrupt(
            f"the catalog of {layout} is older than generation {live.number}: it ends at images/{catalog.max_id()}, "
            f"not at images/{live.max_image_id}: restore the newer catalog, or index into a new directory"
        )


@contextmanager
def _write_errors_named(layout: Layout) -> Iterator[None]:
    """Raise CollectionNotWritable if a write fails: a full or read-only disk, missing permissions."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        name = "" if error.filename is None else Path(os.fsdecode(error.filename)).name
        place = f"{name.removeprefix('.').removesuffix('.tmp')}: " if name else ""
        raise CollectionNotWritable(
            f"{layout} cannot be written ({place}{error.strerror}): free disk space or grant write permission, "
            "then run again; finished work is kept"
        ) from error


@contextmanager
def _kept_in_place(layout: Layout) -> Iterator[Layout]:
    """Give a layout that writes nothing into a directory that takes the place of this one.

    Raises CollectionReplaced in the place of the errors that follow from a removal or a replacement.
    """
    pinned = layout if layout.objects is not None else replace(layout, directory=file_id(layout.root))
    try:
        yield pinned
    except (OSError, CollectionCorrupt):
        pinned.require_in_place()
        raise


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Hold the writer's lock, which the system releases when the process ends in any way."""
    with layout.lock.open("a+") as file:
        _lock(layout, file, fcntl.LOCK_EX)
        _require_no_other_machine(layout, file)
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _require_no_other_machine(layout: Layout, file: TextIO) -> None:
    """Raise CollectionLocked if a process of another machine did not end its lock, which this mount may not show."""
    file.seek(0)
    holder = file.read().strip()
    if holder and not holder.endswith(f" on {socket.gethostname()}") and network_kind(layout.root) is not None:
        raise CollectionLocked(
            f"{layout} is being written to by process {holder}, or that was killed, which cannot be seen over this "
            f"network file system: wait until it ends, or remove {layout.lock} if it no longer runs"
        )


@contextmanager
def not_being_written(layout: Layout) -> Iterator[None]:
    """Lock out writers, for example during a check. Raises CollectionLocked if a writer is active."""
    if Stores.of(layout).catalog is not None:
        with open_catalog(layout) as catalog, catalog.not_being_written():
            yield
        return
    try:
        file = layout.lock.open()
    except FileNotFoundError:  # copied without its lock file: no process writes to it
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
        holder = file.read().strip().removesuffix(f" on {socket.gethostname()}")
        raise CollectionLocked(
            f"{layout} is being {f'written to by process {holder}' if holder else 'verified'}: "
            "wait until that ends, then run again"
        ) from error
