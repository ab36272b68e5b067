"""What a generation holds, and by which recipe it was made."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from indexer.collection.layout import FORMAT_VERSION, Recipe, refuse_newer_format
from indexer.errors import CollectionCorrupt
from indexer.files import write_text

FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class IndexEntry:
    """One vector index of a generation; `whiteners` are the fingerprints of those its vectors' parts went through."""

    file_name: str
    factory: str
    dimensions: int
    byte_count: int
    sha256: str
    whiteners: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """One generation."""

    number: int
    recipe: Recipe
    image_count: int
    indexes: dict[str, IndexEntry]
    shards: tuple[str, ...]
    libraries: dict[str, str]
    created_at: datetime

    def save(self, folder: Path) -> None:
        """Write the manifest into a generation's folder."""
        values = asdict(self) | {"format_version": FORMAT_VERSION, "created_at": self.created_at.isoformat()}
        text = json.dumps(values, indent=2) + "\n"
        write_text(folder / FILE_NAME, text)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a manifest; CollectionCorrupt, CollectionMismatch (made by a newer version)."""
        path = folder / FILE_NAME
        try:
            values: dict[str, Any] = json.loads(path.read_text())
            refuse_newer_format(values, path)
            return cls(
                number=values["number"],
                recipe=Recipe.from_json(values["recipe"]),
                image_count=values["image_count"],
                indexes={name: _index_entry(entry) for name, entry in values["indexes"].items()},
                shards=tuple(values["shards"]),
                libraries=values["libraries"],
                created_at=datetime.fromisoformat(values["created_at"]).astimezone(UTC),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CollectionCorrupt(
                f"generation {folder.name} has no readable manifest ({error}): restore it from a backup"
            ) from error


def _index_entry(values: dict[str, Any]) -> IndexEntry:
    """Return an entry; format 1 named the one whitener that there could be."""
    whiteners = values.pop("whiteners", None) or [values.pop("whitener")]
    return IndexEntry(**values, whiteners=tuple(whiteners))
