"""Classify and normalize local paths and remote URIs by their spelling."""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from whatwhere.indexer.storage.files import path_of_uri, printable
from whatwhere.indexer.storage.schemes import has_password, without_password

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USER = re.compile(r"//[^/?#]*@")
_QUERY = re.compile(r"\?.*", re.DOTALL)
_WEB = ("http", "https")


def scheme_of(text: str) -> str:
    """Return the scheme of a URI in lower case, "" for a path."""
    match = _SCHEME.match(text)
    return "" if match is None else match[0][:-3].lower()


def is_remote(text: str) -> bool:
    """Tell whether the text is a URI with a scheme other than file:."""
    return scheme_of(text) not in ("", "file")


def is_web(uri: str) -> bool:
    """Tell whether a URI is http or https, where folders cannot be listed."""
    return scheme_of(uri) in _WEB


def normalized_uri(text: str) -> str:
    """Normalize a remote URI to its stored form: scheme in lower case, http(s) without fragment.

    Raises ValueError, with the remedy, if it has an unprintable character, a user name or password, or no path.
    """
    scheme = scheme_of(text)
    uri = scheme + text[len(scheme) :]
    if not uri.isprintable():  # also rejects lone surrogates, which no database stores
        raise ValueError("has an unprintable character: write it as %XX in an http(s) URL, or rename the object")
    if is_web(uri):
        uri = uri.partition("#")[0]
        if "@" in urlsplit(uri).netloc:
            raise ValueError("has a user name or password, which would be stored: put them into ~/.netrc")
    elif has_password(uri):
        raise ValueError(f"has a password, which would be stored: set it in FSSPEC_{scheme.upper()}_PASSWORD")
    if not uri[len(scheme) + 3 :].strip("/"):
        raise ValueError("has no bucket or host after the scheme")
    return uri


def shown(uri: str) -> str:
    """Redact a URI for logs and messages: an http(s) query may hold a signature, the host part a password."""
    if not is_web(uri):
        return without_password(uri)
    address, query, _ = _USER.sub("//…@", uri, count=1).partition("?")
    return f"{address}?…" if query else address


def without_secrets(text: str) -> str:
    """Redact what a web library says: the address of a redirect may hold a signature or a password, too.

    A query may contain any character, so the text ends where the first one begins.
    """
    said = _USER.sub("//…@", text)
    return _QUERY.sub("?…", said) if "://" in said else said


def name_of(uri: str) -> str:
    """Return the file name of a URI as printable text of one line."""
    if not is_remote(uri):
        return printable(path_of_uri(uri))
    name = _path_of(uri).rstrip("/").rpartition("/")[2]
    return printable(Path(unquote(name) if is_web(uri) else name)) or shown(uri)


def suffix_of(uri: str) -> str:
    """Return the file extension of a URI in lower case, e.g. ".jpg"."""
    return PurePosixPath(_path_of(uri)).suffix.lower() if not uri.endswith("/") else ""


def _path_of(uri: str) -> str:
    """Return the path of a URI without its host or bucket; only in http(s) do `?` and `#` end it."""
    return urlsplit(uri).path if is_web(uri) else uri.partition("://")[2].partition("/")[2]
