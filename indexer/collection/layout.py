"""Where everything lies, and which generation is the live one."""

import re
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import CollectionCorrupt
from indexer.files import write_text

_CURRENT = re.compile(r"(\d{6,})(?: ([0-9a-f]{64}))?\n", re.ASCII)


@dataclass(frozen=True)
class Current:
    """The live generation: its number, and the seal of its manifest (empty in format 1)."""

    number: int
    seal: str


@dataclass(frozen=True)
class Layout:
    """The names inside a collection's directory."""

    root: Path

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

    def generation(self, number: int) -> Path:
        """Return the folder of one generation."""
        return self.generations / f"{number:06d}"

    def generation_numbers(self) -> list[int]:
        """Return the numbers of all complete folders of generations, published or not."""
        return sorted(int(folder.name) for folder in self.generations.iterdir() if folder.name.isdigit())

    def read_current(self) -> Current | None:
        """Return the live generation, None before the first; CollectionCorrupt for a file that was not so written."""
        try:
            text = self.current.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return None
        found = _CURRENT.fullmatch(text)
        if found is None:
            raise CollectionCorrupt(
                f"{self.current} does not hold a generation's number: run `whatwhere verify --repair`"
            )
        return Current(int(found[1]), found[2] or "")

    def write_current(self, current: Current) -> None:
        """Let a complete generation be the live one."""
        write_text(self.current, f"{current.number:06d} {current.seal}\n")

    def current_number(self) -> int | None:
        """Return the number of the live generation, None before the first."""
        current = self.read_current()
        return None if current is None else current.number
