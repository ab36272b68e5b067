"""Results of searches and explanations, equal for the in-process searcher and for the client of a server."""

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
    """Return the id in a stored image's name, "images/{id}"; None for any other text."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


@dataclass(frozen=True)
class StoredImage:
    """A stored image.

    `name` is "images/{id}". `width_px` and `height_px` are those of the upright original; `byte_count` and `sha256` are
    those of the encoded file. `uris` are all URIs with this content, the first one found first. `create_time` is when
    it was indexed. Filters have the same names; `width`, `height` and `created_at` are those of 0.2.0.
    """

    name: str
    uris: tuple[str, ...]
    width_px: int
    height_px: int
    byte_count: int
    mime_type: str
    sha256: str
    create_time: datetime
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """First URI of the image, "" if there is none."""
        return self.uris[0] if self.uris else ""

    @property
    def width(self) -> int:
        """The older name of `width_px`."""
        return self.width_px

    @property
    def height(self) -> int:
        """The older name of `height_px`."""
        return self.height_px

    @property
    def created_at(self) -> datetime:
        """The older name of `create_time`."""
        return self.create_time

    @property
    def file_name(self) -> str:
        """Last part of `uri`, decoded."""
        return Path(unquote(urlsplit(self.uri).path)).name


@dataclass(frozen=True)
class Hit:
    """One result: `score` is the cosine similarity, `box` the match; None if it was not localized or not found."""

    image: StoredImage
    score: float
    box: Box | None = None


@dataclass(frozen=True)
class SearchResult:
    """One page of results, best first.

    `kept_factor_count` is the number of the query's factors that were used. `region_fallback` is true if no factor
    was inside the region; the nearest one was used then. `next_page_token` is empty on the last page and without a
    server. `last` is the score and the id that the page ends with in the order of all results; None from a server.
    """

    hits: tuple[Hit, ...]
    region_fallback: bool = False
    kept_factor_count: int = 0
    has_more: bool = False
    next_page_token: str = ""
    last: tuple[float, int] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CollectionInfo:
    """The collection that is being served.

    `latest_generation` is the newest published one; it differs from `generation` while it is being opened, or if it
    cannot be opened.
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
    """A similar factor of a stored image: `score` is the cosine similarity, `box` its most activated part."""

    image: StoredImage
    factor: int
    score: float
    box: Box | None


@dataclass(frozen=True)
class Factor:
    """One factor on one image.

    `heat` is float32 [h, w] in [0, 1] with maximum 1, or all 0 if the factor is absent; `box` is None then.
    `energy_share` is a fraction of the energy of all factors, `color` #rrggbb. `png` is empty if it was not requested.
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
    """The factors of an image, strongest first, and the stored image with the same content, if any."""

    factors: tuple[Factor, ...]
    image: StoredImage | None = None


@dataclass(frozen=True)
class ComparedImage:
    """Joint factors on one of the compared images; `image` is None for an uploaded one."""

    image: StoredImage | None
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class PictureFile:
    """An encoded image and its media type."""

    content: bytes
    mime_type: str
