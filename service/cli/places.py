"""Show places to people as they can type them, and take places as people type them."""

from pathlib import Path

from whatwhere.indexer.sources.uris import is_remote, shown
from whatwhere.indexer.storage.files import path_of_uri
from whatwhere.indexer.storage.readable import absolute_place, readable


def place_of(uri: str) -> str:
    """Return a local URI as a path and a remote one decoded, on one line: control characters are escaped."""
    if not uri:
        return ""
    text = readable(shown(uri)) if is_remote(uri) else str(path_of_uri(uri))
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def path_or_none(uri: str) -> str | None:
    """Return the path of a local URI, for programs; None for a remote one."""
    return str(path_of_uri(uri)) if uri and not is_remote(uri) else None


def file_named(text: str) -> Path:
    """Return the path of a file that a person names by its path or its file: URI, percent-encoded or not."""
    if not text.startswith("file://"):
        return Path(text)
    decoded, written = path_of_uri(text), Path(text.removeprefix("file://"))
    return written if not decoded.exists() and written.exists() else decoded


__all__ = ["absolute_place", "file_named", "path_or_none", "place_of"]
