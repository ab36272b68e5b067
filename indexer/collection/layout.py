"""Where everything lies, and which generation is the live one."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from whatwhere.indexer.collection.cache import cache_of, make_room, note_use
from whatwhere.indexer.errors import CollectionCorrupt
from whatwhere.indexer.storage.files import path_of_uri, sync, write_text
from whatwhere.indexer.storage.object_store import ObjectFolder

CollectionAddress: TypeAlias = Path | str  # of a collection: a directory, or the URI of an object store's folder

_CURRENT = re.compile(r"(\d{6,})(?: ([0-9a-f]{64}))?\n", re.ASCII)


@dataclass(frozen=True)
class Current:
    """The live generation: its number, and the seal of its manifest (empty in format 1)."""

    number: int
    seal: str


@dataclass(frozen=True)
class Layout:
    """The names inside a collection: of files in a directory, or of objects with a copy of some in a cache.

    Code reads and writes files below `root`. Of a directory, these are the collection; of an object store, `fetch`
    brings a file here before it is read and `keep` takes it there after it was written. What lies below shards/,
    segments/, whiteners/ and generations/ never changes, so a copy is as good as the original.
    """

    root: Path
    objects: ObjectFolder | None = None

    @classmethod
    def at(cls, address: CollectionAddress) -> Self:
        """Return the layout of a collection at a path, or at the URI of an object store's folder."""
        text = str(address)
        if "://" not in text:
            return cls(Path(address))
        if text.startswith("file://"):
            return cls(path_of_uri(text))
        text = text.rstrip("/")
        return cls(cache_of(text), ObjectFolder(text))

    @property
    def address(self) -> CollectionAddress:
        """Where the collection is."""
        return self.root if self.objects is None else self.objects.address

    def __str__(self) -> str:
        """Return the address, for messages."""
        return str(self.address)

    @property
    def stores(self) -> Path:
        """The file that names the stores outside; absent where all is in the collection itself."""
        return self.root / "stores.json"

    @property
    def recipe(self) -> Path:
        """The recipe, written once when the collection is made."""
        return self.root / "collection.json"

    @property
    def catalog(self) -> Path:
        """The SQLite catalogue."""
        return self.root / "catalog.db"

    @property
    def shards(self) -> Path:
        """The folder of factor files."""
        return self.root / "shards"

    @property
    def arriving(self) -> Path:
        """The folder of shards that workers wrote and nobody has recorded yet; only there while workers are."""
        return self.root / "arriving"

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Have the folder of arriving shards, empty at first, and take it away in the end with what was not kept."""
        self.discard(self.arriving)  # a killed run's
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
        """The folder of the whiteners in use, each under its fingerprint: queries pass through the same."""
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
        """The file that the one writer locks; it holds the writer's process id."""
        return self.root / "writer.lock"

    def fetch(self, path: Path, *, anew: bool = False) -> Path:
        """Return `path`, where its file can be read from now on; where there is none, neither is there one after.

        `anew` is for the few files that may change, and for a copy that proved damaged.
        """
        if self.objects is None:
            return path
        if anew or not path.exists():
            try:
                self.objects.download(self._name(path), path)
            except FileNotFoundError:
                path.unlink(missing_ok=True)
            make_room(self.root)
        else:
            note_use(path)
        return path

    def fetch_folder(self, folder: Path) -> Path:
        """Return a folder whose files can all be read from now on."""
        if self.objects is not None:
            for name in self.names(folder):
                self.fetch(folder / name)
        return folder

    def drop_copies(self) -> bool:
        """Forget the copies of what generations consist of, and tell whether there could be any."""
        if self.objects is not None:
            for folder in (self.generations, self.segments, self.whiteners):
                shutil.rmtree(folder, ignore_errors=True)
        return self.objects is not None

    def keep(self, path: Path) -> None:
        """Have a file, or a folder of files, that was written completely kept where the collection is."""
        if self.objects is not None:
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                self.objects.upload(file, self._name(file))

    def move(self, path: Path, target: Path) -> None:
        """Let a file of this collection be another one, which there may have been."""
        if self.objects is None:
            path.replace(target)
            sync(target.parent)
        else:
            self.objects.move(self._name(path), self._name(target))
            path.unlink(missing_ok=True)
            target.unlink(missing_ok=True)

    def discard(self, path: Path) -> None:
        """Remove a file, or a folder of files; nothing where there is none."""
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
        """Return the bytes of all files below a folder, by their names relative to it."""
        if self.objects is not None:
            start = len(self._name(folder)) + 1
            return {name[start:]: count for name, count in self.objects.sizes(self._name(folder)).items()}
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}

    def byte_count(self, folder: Path) -> int:
        """Return the bytes of all files below a folder."""
        return sum(self.sizes(folder).values())

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def generation(self, number: int) -> Path:
        """Return the folder of one generation."""
        return self.generations / f"{number:06d}"

    def generation_numbers(self) -> list[int]:
        """Return the numbers of all complete folders of generations, published or not."""
        return sorted(int(name) for name in self.names(self.generations) if name.isdigit())

    def read_current(self) -> Current | None:
        """Return the live generation, None before the first; CollectionCorrupt for a file that was not so written."""
        try:
            text = self.fetch(self.current, anew=True).read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return None
        found = _CURRENT.fullmatch(text)
        if found is None:
            raise CollectionCorrupt(
                f"{self}/{self.current.name} does not hold a generation's number: run `whatwhere verify --repair`"
            )
        return Current(int(found[1]), found[2] or "")

    def write_current(self, current: Current) -> None:
        """Let a complete generation be the live one."""
        write_text(self.current, f"{current.number:06d} {current.seal}\n")
        self.keep(self.current)

    def current_number(self) -> int | None:
        """Return the number of the live generation, None before the first."""
        current = self.read_current()
        return None if current is None else current.number
