"""The manifest of a generation: its contents, and the recipe that it was made with."""

import hashlib
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.sealed import read_sealed, write_sealed
from whatwhere.indexer.errors import CollectionCorrupt
from whatwhere.indexer.storage.files import sha256_of, write_durably
from whatwhere.indexer.vectors.store import Entry, RemoteEntry, SegmentEntry

FILE_NAME = "manifest.json"
REMOVED_NAME = "removed.npy"
IDS_NAME, FACTS_NAME = "ids.npy", "facts.npy"  # only if a vector database holds the vectors


@dataclass(frozen=True)
class IndexEntry:
    """One descriptor's vectors, in segment files or in the database that `remote` names.

    `whiteners` are the fingerprints of the whiteners of the vectors' parts.
    """

    dimensions: int
    whiteners: tuple[str, ...]
    segments: tuple[SegmentEntry, ...] = ()
    remote: RemoteEntry | None = None

    @property
    def held(self) -> Entry:
        """The part of it that a vector store holds."""
        return Entry(self.segments, self.remote)


@dataclass(frozen=True)
class Manifest:
    """One generation. `ids_sha256` is the SHA-256 of its searchable ids, sorted; `max_image_id` the largest of them.

    `facts_sha256` is the SHA-256 of the filterable facts that a vector database holds; empty without one.
    """

    number: int
    recipe: Recipe
    image_count: int
    max_image_id: int
    ids_sha256: str
    indexes: dict[str, IndexEntry]
    removed_sha256: str
    libraries: dict[str, str]
    created_at: datetime
    facts_sha256: str = ""
    identity: Identity = field(default_factory=Identity)

    def save(self, folder: Path) -> str:
        """Write the manifest into a generation's folder and return its seal."""
        values = asdict(self) | {"created_at": self.created_at.isoformat()}
        if not self.facts_sha256:
            del values["facts_sha256"]
        for entry in values["indexes"].values():
            if entry["remote"] is None:
                del entry["remote"]
        return write_sealed(folder / FILE_NAME, values)

    @classmethod
    def load(cls, folder: Path, seal: str | None = None) -> Self:
        """Read a manifest, and compare its seal; CollectionCorrupt, CollectionMismatch (written by a newer version)."""
        path = folder / FILE_NAME
        try:
            values, found = read_sealed(path)
            manifest = cls._from_json(values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CollectionCorrupt(
                f"{path} is missing or corrupt ({error}): run `whatwhere verify --repair`"
            ) from error
        if seal is not None and seal != found:
            raise CollectionCorrupt(f"{path} is not the manifest that CURRENT names: run `whatwhere verify --repair`")
        return manifest

    @classmethod
    def live(cls, layout: Layout) -> Self | None:
        """Read the manifest of the live generation; None before the first.

        Raises as `load`, and CollectionCorrupt if it belongs to another collection.
        """
        current = layout.read_current()
        if current is None:
            return None
        manifest = cls.load(layout.fetch_folder(layout.generation(current.number)), current.seal)
        manifest.require_of(Identity.of(layout), layout)
        return manifest

    def require_of(self, identity: Identity, layout: Layout) -> None:
        """Raise CollectionCorrupt if the generation belongs to another collection than this one."""
        if not identity.owns(self.identity.id):
            raise CollectionCorrupt(
                f"generation {self.number} in {layout} belongs to another collection ({self.identity.id}, not "
                f"{identity.id}): restore the files of this one, or run `whatwhere verify --repair`"
            )

    @classmethod
    def _from_json(cls, values: dict[str, Any]) -> Self:
        if values["format_version"] == 1:
            return cls._from_format_1(values)
        return cls(
            number=values["number"],
            recipe=Recipe.from_json(values["recipe"]),
            image_count=values["image_count"],
            max_image_id=values["max_image_id"],
            ids_sha256=values["ids_sha256"],
            indexes={name: _index_entry(entry) for name, entry in values["indexes"].items()},
            removed_sha256=values["removed_sha256"],
            libraries=values["libraries"],
            created_at=datetime.fromisoformat(values["created_at"]).astimezone(UTC),
            facts_sha256=values.get("facts_sha256", ""),
            identity=Identity.from_json(values),
        )

    @classmethod
    def _from_format_1(cls, values: dict[str, Any]) -> Self:
        """Return a manifest without vectors: format 1 stored them differently, and they are computed again."""
        indexes = {
            name: IndexEntry(entry["dimensions"], (entry["whitener"],), ()) for name, entry in values["indexes"].items()
        }
        created_at = datetime.fromisoformat(values["created_at"]).astimezone(UTC)
        count = values["image_count"]
        recipe = Recipe.from_json(values["recipe"])
        return cls(values["number"], recipe, count, 0, "", indexes, "", values["libraries"], created_at)

    @property
    def is_remote(self) -> bool:
        """Whether a vector database holds the vectors."""
        return any(entry.remote is not None for entry in self.indexes.values())

    @property
    def has_vectors(self) -> bool:
        """Whether this version can search it: format 1 stored its vectors differently."""
        return bool(self.removed_sha256)


def _index_entry(values: dict[str, Any]) -> IndexEntry:
    segments = tuple(SegmentEntry(**segment) for segment in values["segments"])
    remote = RemoteEntry(**values["remote"]) if "remote" in values else None
    return IndexEntry(values["dimensions"], tuple(values["whiteners"]), segments, remote)


def ids_sha256(ids: NDArray[np.int64]) -> str:
    """Return the SHA-256 of sorted ids, or of an array of other values."""
    return hashlib.sha256(np.ascontiguousarray(ids, dtype="<i8").tobytes()).hexdigest()


def write_removed(folder: Path, ids: NDArray[np.int64]) -> str:
    """Write the ids that segments still hold although they were removed, and return the file's SHA-256."""
    return write_array(folder / REMOVED_NAME, ids)


def read_removed(folder: Path, sha256: str) -> NDArray[np.int64]:
    """Read the removed ids; CollectionCorrupt if the file is missing or its checksum differs."""
    path = folder / REMOVED_NAME
    try:
        if sha256_of(path) == sha256:
            return np.asarray(np.load(path), dtype=np.int64)
    except OSError:
        pass  # a missing and a changed file have the same remedy
    raise _changed(path)


def read_ids(folder: Path, sha256: str) -> NDArray[np.int64]:
    """Map the sorted searchable ids; CollectionCorrupt if the file is missing or its checksum differs."""
    return _mapped(folder / IDS_NAME, sha256)


def read_facts(folder: Path, sha256: str) -> NDArray[np.int64]:
    """Map the digests of the images' filterable facts, in the order of ids; CollectionCorrupt as `read_ids`."""
    return _mapped(folder / FACTS_NAME, sha256)


def _mapped(path: Path, sha256: str) -> NDArray[np.int64]:
    try:
        values: NDArray[np.int64] = np.load(path, mmap_mode="r")
        if ids_sha256(values) == sha256:
            return values
    except (OSError, ValueError):
        pass
    raise _changed(path)


def _changed(path: Path) -> CollectionCorrupt:
    return CollectionCorrupt(f"{path} is missing or changed: run `whatwhere verify --repair`")


def write_array(path: Path, values: NDArray[np.int64]) -> str:
    """Write an array atomically, and return the file's SHA-256."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, values)

    write_durably(path, write)
    return sha256_of(path)
