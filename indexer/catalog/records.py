"""The values that the catalog takes and returns: frozen dataclasses, no row objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

INDEXED, FAILED, REMOVED = ("indexed", "failed", "removed")
ORIGINS = ("file", "sidecar", "exif")  # of a source's metadata, in order of precedence
SHARD_LOST = "SHARD_LOST"  # failure reason of images whose shard was lost: the next run describes them again


@dataclass(frozen=True)
class Source:
    """A place where an image was found.

    If `byte_count` and `modified_ns` (a time, or a mark of a remote version) are unchanged, so is the image.
    """

    uri: str
    byte_count: int
    modified_ns: int


@dataclass(frozen=True)
class NewImage:
    """New content: described (`shard_row` in the shard of its chunk) or failed (`failure_reason`).

    `failure_message` may say of described content that the file is truncated.
    """

    content_hash: str | None  # SHA-256 in hexadecimal; None if the file could not be read
    byte_count: int
    width: int = 0
    height: int = 0
    mime_type: str = ""
    shard_row: int | None = None
    failure_reason: str | None = None
    failure_message: str | None = None


@dataclass(frozen=True)
class Outcome:
    """Result for one source: `image` for new content, `known_hash` for content that the catalog has.

    `metadata` maps origins to new values; None or an empty mapping deletes them. Other origins stay, except "exif",
    which is deleted together with the old content.
    """

    source: Source
    image: NewImage | None = None
    known_hash: str | None = None
    metadata: Mapping[str, Mapping[str, object] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardRecord:
    """A complete shard file."""

    file_name: str
    image_count: int
    byte_count: int
    sha256: str
    id: int = 0


@dataclass(frozen=True)
class Owner:
    """The collection that a catalog belongs to: its id, and its directory or URI for people and as a mark."""

    collection_id: str
    home: str = ""
    home_mark: str = ""


@dataclass(frozen=True)
class SkippedRecord:
    """A file or folder (its URI ends in "/") that the last scan of its place passed over: no image."""

    uri: str
    kind: str
    reason: str


@dataclass(frozen=True)
class ImageRecord:
    """One image. `uris` are the places of this content, oldest first; sizes (pixels) are of the upright image.

    Places whose files no longer existed when they were last looked for come last; `vanished_uris` are these.

    `user_metadata` merges the metadata of its sources; the first source has precedence.
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
    removed_at: datetime | None = None  # set if a user removed it
    vanished_uris: tuple[str, ...] = ()
