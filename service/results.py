"""What a search gives, the same from the searcher in this process and from the client of a server."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from indexer.boxes import Box


@dataclass(frozen=True)
class StoredImage:
    """An indexed image; `name` is "images/{id}", sizes are of the upright original."""

    name: str
    uris: tuple[str, ...]
    width: int
    height: int
    byte_count: int
    mime_type: str
    sha256: str
    created_at: datetime
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """Where the image was found first."""
        return self.uris[0] if self.uris else ""


@dataclass(frozen=True)
class Hit:
    """One result: cosine similarity, and the matching box where it was localised."""

    image: StoredImage
    score: float
    box: Box | None = None


@dataclass(frozen=True)
class SearchResult:
    """One page of results, best first; `next_page_token` is empty on the last (and in this process)."""

    hits: tuple[Hit, ...]
    region_fallback: bool = False
    kept_factor_count: int = 0
    has_more: bool = False
    next_page_token: str = ""


@dataclass(frozen=True)
class CollectionInfo:
    """The collection that is being served.

    `latest_generation` is the newest published one: not `generation` while it is being opened, or cannot be.
    """

    generation: int
    latest_generation: int
    image_count: int
    backbone: str
    rank: int
    descriptors: tuple[str, ...]
    published_at: datetime
