"""The identity of a collection: a random id that its files, its catalog and its vectors carry."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.sealed import read_sealed
from whatwhere.indexer.errors import CollectionCorrupt, CollectionMismatch

NAME = "identity"  # the key in collection.json and in manifests
_ID_BYTES = 16


@dataclass(frozen=True)
class Identity:
    """The id of a collection, 32 hex digits, and the ids of the collections that it was copied from.

    The id is empty if an older version wrote the collection; the next run gives it one.
    """

    id: str = ""
    origins: tuple[str, ...] = ()

    @classmethod
    def new(cls, copied_from: "Identity | None" = None) -> Self:
        """Return an identity with a new id, for a new collection or for a copy."""
        origins = () if copied_from is None else (copied_from.id, *copied_from.origins)
        return cls(secrets.token_hex(_ID_BYTES), tuple(origin for origin in origins if origin))

    @classmethod
    def of(cls, layout: Layout) -> Self:
        """Return the identity in collection.json, or in the newest readable manifest if that has none or is damaged."""
        for path in _places(layout):
            with suppress(OSError, CollectionCorrupt, CollectionMismatch, KeyError, TypeError):
                found = cls.from_json(read_sealed(layout.fetch(path))[0])
                if found.id:
                    return found
        return cls()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the identity in the values of collection.json or of a manifest, an empty one in those of old formats.

        KeyError, TypeError for other values.
        """
        held = values.get(NAME)
        return cls() if held is None else cls(str(held["id"]), tuple(map(str, held["origins"])))

    def owns(self, other: str) -> bool:
        """Tell whether a file with this id is part of the collection; files of older versions have none."""
        return not (other and self.id) or other == self.id or other in self.origins


def has_identity(layout: Layout) -> bool:
    """Tell whether collection.json has the identity: a version before format 3 wrote none."""
    return NAME in read_sealed(layout.fetch(layout.recipe))[0]


def _places(layout: Layout) -> Iterator[Path]:
    yield layout.recipe
    for number in reversed(layout.generation_numbers()):
        yield layout.generation(number) / "manifest.json"
