"""What a search gives, the same from the searcher in this process and from the client of a server."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from whatwhere.indexer.boxes import Box

_NAME = re.compile(r"images/([1-9][0-9]{0,17})", re.ASCII)


def stored_id(name: str) -> int | None:
    """Return the id in a stored image's name, "images/{id}"; None of what is no such name."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


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

    @property
    def file_name(self) -> str:
        """The last part of `uri`, as people write it."""
        return Path(unquote(urlsplit(self.uri).path)).name


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


@dataclass(frozen=True)
class SimilarFactor:
    """A factor of a stored image that shows the same as another's: cosine similarity, and where it is."""

    image: StoredImage
    factor: int
    score: float
    box: Box | None


@dataclass(frozen=True)
class Factor:
    """One factor on one picture: `heat` float32 [h, w] in [0, 1], the largest at 1, all 0 where it is not there.

    `energy_share` is that of all factors' energy; `png` is empty where none was asked for; `colour` is #rrggbb.
    """

    index: int
    energy_share: float
    box: Box | None
    heat: NDArray[np.float32]
    color: str
    png: bytes = b""
    similar: tuple[SimilarFactor, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """The factors of a picture, strongest first, and the stored image of the same content where there is one."""

    factors: tuple[Factor, ...]
    image: StoredImage | None = None


@dataclass(frozen=True)
class ComparedImage:
    """The factors that pictures share, on one of them; `image` is None for one that was sent."""

    image: StoredImage | None
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class PictureFile:
    """An encoded picture and its media type."""

    content: bytes
    mime_type: str
