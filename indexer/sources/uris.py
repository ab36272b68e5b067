"""Files of this machine and URIs of elsewhere, told apart by how they are written."""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from whatwhere.indexer.storage.files import path_of_uri, printable

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USER = re.compile(r"//[^/?#]*@")
_WEB = ("http", "https")


def scheme_of(text: str) -> str:
    """Return the scheme of a URI in small letters; empty for a path."""
    match = _SCHEME.match(text)
    return "" if match is None else match[0][:-3].lower()


def is_remote(text: str) -> bool:
    """Tell whether a text is a URI of something that is no file of this machine."""
    return scheme_of(text) not in ("", "file")


def is_web(uri: str) -> bool:
    """Tell whether a URI is of the web, where nothing can be listed."""
    return scheme_of(uri) in _WEB


def given_uri(text: str) -> str:
    """Return a URI of elsewhere as it is kept; ValueError, with the remedy, for one that cannot be."""
    scheme = scheme_of(text)
    uri = scheme + text[len(scheme) :]
    if not uri.isprintable():  # which also refuses half characters, that no database takes
        raise ValueError("has a character that cannot be printed: give it as %XX on the web, rename it elsewhere")
    if is_web(uri):
        uri = uri.partition("#")[0]
        if "@" in urlsplit(uri).netloc:
            raise ValueError("has a user's name or password in it, and would be kept: put them into ~/.netrc")
    if not uri[len(scheme) + 3 :].strip("/"):
        raise ValueError("names no place: write a bucket or host after the scheme")
    return uri


def shown(uri: str) -> str:
    """Return a URI as it may stand in a log: on the web, a query can hold a signature, and the host a password."""
    if not is_web(uri):
        return uri
    address, query, _ = _USER.sub("//…@", uri, count=1).partition("?")
    return f"{address}?…" if query else address


def name_of(uri: str) -> str:
    """Return the name of the picture at a URI as text of one line that can be stored and printed."""
    if not is_remote(uri):
        return printable(path_of_uri(uri))
    name = _path_of(uri).rstrip("/").rpartition("/")[2]
    return printable(Path(unquote(name) if is_web(uri) else name)) or shown(uri)


def suffix_of(uri: str) -> str:
    """Return how a name ends, in small letters: ".jpg"."""
    return PurePosixPath(_path_of(uri)).suffix.lower() if not uri.endswith("/") else ""


def _path_of(uri: str) -> str:
    """Return the path of a URI without its host or bucket; only on the web do `?` and `#` end it."""
    return urlsplit(uri).path if is_web(uri) else uri.partition("://")[2].partition("/")[2]
