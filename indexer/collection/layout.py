"""Where everything lies, and the recipe that every image of a collection was described by."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from indexer.errors import CollectionCorrupt, CollectionMismatch, CollectionNotFound
from indexer.files import write_text
from indexer.methods import Method, find_method

FORMAT_VERSION = 2  # 1: no preset, one whitener for each index


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

    def current_number(self) -> int | None:
        """Return the number of the live generation, None before the first."""
        try:
            return int(self.current.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CollectionCorrupt(f"{self.current} does not hold a generation's number") from error


@dataclass(frozen=True)
class Recipe:
    """How every image of the collection is described; a different recipe is a different collection."""

    backbone: str
    layer: str
    weights_sha256: str
    rank: int
    shorter_side: int
    descriptors: tuple[str, ...]
    precision: str
    preset: str
    format_version: int = FORMAT_VERSION

    def save(self, layout: Layout) -> None:
        """Write the recipe of a new collection."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        write_text(layout.recipe, text)

    @classmethod
    def load(cls, layout: Layout) -> Self:
        """Read the recipe; CollectionNotFound, CollectionCorrupt, CollectionMismatch (made by a newer version)."""
        try:
            values: dict[str, Any] = json.loads(layout.recipe.read_text())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CollectionNotFound(
                f"{layout.root} holds no collection: make one with `whatwhere index PATH... --collection {layout.root}`"
            ) from error
        except ValueError as error:
            raise CollectionCorrupt(f"{layout.recipe} is not JSON: restore it from a backup") from error
        refuse_newer_format(values, layout.recipe)
        try:
            return cls.from_json(values)
        except (KeyError, TypeError) as error:
            raise CollectionCorrupt(f"{layout.recipe} lacks or adds an entry ({error}): restore it") from error

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the recipe that JSON holds, an older one as this version would write it; KeyError, TypeError."""
        # what there was no choice of in format 1
        older = {"precision": "float32", "preset": "thesis"} if values["format_version"] == 1 else {}
        known = {"descriptors": tuple(values["descriptors"]), "format_version": FORMAT_VERSION}
        return cls(**older | values | known)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The descriptors, as the preset makes them; UnknownName for one that this version has not."""
        return tuple(find_method(name, self.preset) for name in self.descriptors)

    def require_network(self, layer: str, weights_sha256: str, root: Path) -> None:
        """Raise CollectionMismatch when the network here is cut at another layer or has other weights.

        A shorter `weights_sha256` is the begin of one, which is all that a name of a file says.
        """
        if layer != self.layer or not self.weights_sha256.startswith(weights_sha256):
            raise CollectionMismatch(
                f"{root} was made with {self.backbone}, layer {self.layer}, weights {self.weights_sha256[:12]}…; here "
                f"are layer {layer}, weights {weights_sha256[:12]}…: give the file that it was made with by --weights "
                "FILE, install the version of whatwhere that made it, or index again into a new directory"
            )

    def require_same(self, wanted: "Recipe", root: Path) -> None:
        """Raise CollectionMismatch when `wanted` describes images differently."""
        differing = [
            f"{name} {mine!r}, not {theirs!r}"
            for (name, mine), theirs in zip(asdict(self).items(), asdict(wanted).values(), strict=True)
            if mine != theirs
        ]
        if differing:
            raise CollectionMismatch(
                f"{root} was made with {'; '.join(differing)}: use the collection's own, or index into a new directory"
            )


def refuse_newer_format(values: dict[str, Any], path: Path) -> None:
    """Raise CollectionMismatch for a file that a newer whatwhere wrote."""
    version = values.get("format_version") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise CollectionCorrupt(f"{path} has no format_version: restore it from a backup")
    if version > FORMAT_VERSION:
        raise CollectionMismatch(f"{path} has format {version}, this whatwhere reads {FORMAT_VERSION}: upgrade it")
