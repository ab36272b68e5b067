"""The files of a collection: their places, and which generation is live."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from whatwhere.indexer.collection.cache import cache_of, make_room, note_use
from whatwhere.indexer.errors import CollectionCorrupt, CollectionReplaced, InvalidRequest
from whatwhere.indexer.storage.files import FileId, file_id, path_of_uri, sync, write_text
from whatwhere.indexer.storage.object_store import ObjectFolder
from whatwhere.indexer.storage.schemes import has_password, without_password

CollectionAddress: TypeAlias = Path | str  # a directory, or the URI of a folder in an object store

_CURRENT = re.compile(r"(\d{6,})(?: ([0-9a-f]{64}))?\n", re.ASCII)


@dataclass(frozen=True)
class Current:
    """The live generation's number, and the seal of its manifest (empty in format 1)."""

    number: int
    seal: str


@dataclass(frozen=True)
class Layout:
    """The files of a collection in a directory, or in an object store with a local cache of some of them.

    Code reads and writes files below `root`. For a directory, they are the collection itself. For an object store,
    `fetch` downloads a file before it is read, and `keep` uploads it after it was written. Files in shards/, segments/,
    whiteners/ and generations/ never change, so a cached copy is never stale.
    """

    root: Path
    objects: ObjectFolder | None = None
    directory: FileId | None = None  # the one at `root` that a writer has locked

    @classmethod
    def at(cls, address: CollectionAddress) -> Self:
        """Return the layout of a collection at a path, or at the URI of an object store's folder.

        Symbolic links are followed once: a link that is turned to another collection changes nothing for a process that
        has this one open. Raises InvalidRequest if the URI has a password.
        """
        text = str(address)
        if "://" not in text:
            return cls(_followed(Path(address)))
        if text.startswith("file://"):
            return cls(_followed(path_of_uri(text)))
        if has_password(text):
            raise InvalidRequest(
                f"{without_password(text)}: the address has a password, which logs would show: give credentials as the "
                "store's own tools take them (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://)",
                field="collection",
            )
        text = text.rstrip("/")
        return cls(cache_of(text), ObjectFolder(text))

    @property
    def address(self) -> CollectionAddress:
        """The directory or URI of the collection."""
        return self.root if self.objects is None else self.objects.address

    def require_in_place(self) -> None:
        """Raise CollectionReplaced if the directory that a writer has locked was removed or replaced by another one."""
        if self.directory is not None and file_id(self.root) != self.directory:
            raise CollectionReplaced(
                f"{self} was removed or replaced by another directory while it was being written: nothing was written "
                "to the other one; run again"
            )

    def __str__(self) -> str:
        """Return the address, for messages."""
        return str(self.address)

    @property
    def stores(self) -> Path:
        """The file that names external databases; absent if the collection uses none."""
        return self.root / "stores.json"

    @property
    def recipe(self) -> Path:
        """The recipe, written once when the collection is created."""
        return self.root / "collection.json"

    @property
    def catalog(self) -> Path:
        """The SQLite catalog."""
        return self.root / "catalog.db"

    @property
    def shards(self) -> Path:
        """The folder of factor files."""
        return self.root / "shards"

    @property
    def arriving(self) -> Path:
        """The folder of shards that workers wrote and that are not recorded yet; it exists only during a run."""
        return self.root / "arriving"

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Create the folder of arriving shards, empty, and remove it at the end with all that was not recorded."""
        self.discard(self.arriving)  # left by a killed run
        self.arriving.mkdir()
        try:
            yield
        finally:
            self.discard(self.arriving)

    @property
    def segments(self) -> Path:
        """The folder of vector files; generations share them."""
        return self.root / "segments"

    @property
    def whiteners(self) -> Path:
        """The folder of the whiteners in use, each under its fingerprint; queries use them too."""
        return self.root / "whiteners"

    def whitener(self, fingerprint: str) -> Path:
        """Return the file of one whitener."""
        return self.whiteners / f"{fingerprint}.safetensors"

    @property
    def generations(self) -> Path:
        """The folder of published generations."""
        return self.root / "generations"

    @property
    def current(self) -> Path:
        """The file that names the live generation."""
        return self.root / "CURRENT"

    @property
    def lock(self) -> Path:
        """The file that the one writer locks; it holds the writer's process id and machine."""
        return self.root / "writer.lock"

    def fetch(self, path: Path, *, refetch: bool = False) -> Path:
        """Download a file of an object store if it is not cached, and return `path`; a missing file stays missing.

        `refetch` downloads it in any case: for the few files that change, and for a corrupt copy.
        """
        if self.objects is None:
            return path
        if refetch or not path.exists():
            try:
                self.objects.download(self._name(path), path)
            except FileNotFoundError:
                path.unlink(missing_ok=True)
            make_room(self.root)
        else:
            note_use(path)
        return path

    def fetch_folder(self, folder: Path) -> Path:
        """Download all files of a folder that are not cached, and return the folder."""
        if self.objects is not None:
            for name in self.names(folder):
                self.fetch(folder / name)
        return folder

    def drop_copies(self) -> bool:
        """Remove the cached files of generations, and tell whether the collection has a cache."""
        if self.objects is not None:
            for folder in (self.generations, self.segments, self.whiteners):
                shutil.rmtree(folder, ignore_errors=True)
        return self.objects is not None

    def keep(self, path: Path) -> None:
        """Upload a complete file, or a folder of files, if the collection is in an object store."""
        if self.objects is not None:
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                self.objects.upload(file, self._name(file))

    def move(self, path: Path, target: Path) -> None:
        """Rename a file of this collection, replacing `target` if it exists."""
        if self.objects is None:
            path.replace(target)
            sync(target.parent)
        else:
            self.objects.move(self._name(path), self._name(target))
            path.unlink(missing_ok=True)
            target.unlink(missing_ok=True)

    def discard(self, path: Path) -> None:
        """Remove a file, or a folder of files, if it exists."""
        if self.objects is not None:
            below = self.objects.sizes(self._name(path)) or {self._name(path): 0}
            for name in below:
                self.objects.remove(name)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def names(self, folder: Path) -> list[str]:
        """Return the names of the files and folders in a folder, sorted."""
        if self.objects is None:
            return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return sorted({name.partition("/")[0] for name in self.sizes(folder)})

    def sizes(self, folder: Path) -> dict[str, int]:
        """Return the sizes in bytes of all files below a folder, by their names relative to it."""
        if self.objects is not None:
            start = len(self._name(folder)) + 1
            return {name[start:]: count for name, count in self.objects.sizes(self._name(folder)).items()}
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}

    def byte_count(self, folder: Path) -> int:
        """Return the total size in bytes of all files below a folder."""
        return sum(self.sizes(folder).values())

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def generation(self, number: int) -> Path:
        """Return the folder of one generation."""
        return self.generations / f"{number:06d}"

    def generation_numbers(self) -> list[int]:
        """Return the numbers of all complete generation folders, published or not."""
        return sorted(int(name) for name in self.names(self.generations) if name.isdigit())

    def read_current(self) -> Current | None:
        """Return the live generation, None before the first; CollectionCorrupt if the file has other content."""
        try:
            text = self.fetch(self.current, refetch=True).read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return None
        found = _CURRENT.fullmatch(text)
        if found is None:
            raise CollectionCorrupt(
                f"{self}/{self.current.name} does not hold the number of a generation: run `whatwhere verify --repair`"
            )
        return Current(int(found[1]), found[2] or "")

    def write_current(self, current: Current) -> None:
        """Make a complete generation the live one."""
        self.require_in_place()
        write_text(self.current, f"{current.number:06d} {current.seal}\n")
        self.keep(self.current)

    def current_number(self) -> int | None:
        """Return the number of the live generation, None before the first."""
        current = self.read_current()
        return None if current is None else current.number


def _followed(path: Path) -> Path:
    """Return the path without symbolic links, or as it is if it has none."""
    real = path.resolve()
    return path if real == Path(os.path.abspath(path)) else real
