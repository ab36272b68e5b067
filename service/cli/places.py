"""Show places as people type them: paths instead of file: URIs."""

from whatwhere.indexer.sources.uris import is_remote, shown
from whatwhere.indexer.storage.files import path_of_uri
from whatwhere.indexer.storage.readable import escaped, readable


def place_of(uri: str) -> str:
    """Return a local URI as a path and a remote one decoded, on one line: control characters are escaped."""
    if not uri:
        return ""
    text = readable(shown(uri)) if is_remote(uri) else str(path_of_uri(uri)).rstrip("/") + "/" * uri.endswith("/")
    return escaped(text)


def path_or_none(uri: str) -> str | None:
    """Return the path of a local URI, for programs; None for a remote one."""
    return str(path_of_uri(uri)) if uri and not is_remote(uri) else None
