"""What the catalogue takes and gives: frozen dataclasses, never a row object."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

INDEXED, FAILED, REMOVED = STATES = ("indexed", "failed", "removed")
ORIGINS = ("file", "sidecar", "exif")  # of a source's metadata, the first wins
SHARD_LOST = "SHARD_LOST"  # the reason of images whose shard is gone: the next run describes them again


@dataclass(frozen=True)
class Source:
    """A place where an image was found. `modified_ns` and `byte_count` tell cheaply whether to look again."""

    uri: str
    byte_count: int
    modified_ns: int


@dataclass(frozen=True)
class NewImage:
    """Content seen for the first time: described (`shard_row` in the shard of its chunk), or failed for a reason."""

    content_hash: str | None  # SHA-256 in hex; None when the file could not be read at all
    byte_count: int
    width: int = 0
    height: int = 0
    mime_type: str = ""
    shard_row: int | None = None
    failure_reason: str | None = None
    failure_message: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one source: `image` is new content, `known_hash` content the catalogue already has.

    `metadata` is what these origins say of it, None or empty for nothing; origins that are not named stay as they are,
    but for "exif", which goes with the content that it stood in.
    """

    source: Source
    image: NewImage | None = None
    known_hash: str | None = None
    metadata: Mapping[str, Mapping[str, object] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardRecord:
    """A shard file that is complete on disk."""

    file_name: str
    image_count: int
    byte_count: int
    sha256: str
    id: int = 0


@dataclass(frozen=True)
class ImageRecord:
    """One image. `uris` are the places of this content, the first found first; sizes are of the upright original.

    `user_metadata` is the union over its sources in that order, the first one wins.
    """

    id: int
    state: str
    uris: tuple[str, ...]
    content_hash: str | None
    width: int
    height: int
    byte_count: int
    mime_type: str
    created_at: datetime
    failure_reason: str | None = None
    failure_message: str | None = None
    shard_file: str | None = None
    shard_row: int | None = None
    user_metadata: Mapping[str, object] = field(default_factory=dict)
    removed_at: datetime | None = None  # set where a person removed it
