"""Spell URIs as people read them: percent-decoded, in one Unicode normalization form; catalogs compare this form."""

import os
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

_LOCAL = "file://"
_ENCODED = (_LOCAL, "http://", "https://")  # other schemes have names that are stored as they are
_OPEN = "*"  # a pattern that begins with it matches any folder


def composed(text: str) -> str:
    """Return text in the Unicode normalization form that texts are compared in (NFC)."""
    return text if text.isascii() else normalize("NFC", text)


def escaped(text: str) -> str:
    """Return text on one line, without characters that a terminal obeys: control characters become escapes."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def readable(uri: str) -> str:
    """Return a stored URI as people read and compare it: percent-decoded if its scheme encodes names, in NFC.

    Bytes that are not UTF-8 become \ufffd. The result of two names that differ only in their form is the same.
    """
    decoded = _decoded(uri) if uri.startswith(_ENCODED) else uri
    return composed(uri if "\0" in decoded else decoded)  # PostgreSQL stores no NUL


def readable_if_other(uri: str) -> str | None:
    """Return `readable(uri)` if it differs from the URI, else None: most URIs are stored once."""
    if "%" not in uri and uri.isascii():
        return None
    other = readable(uri)
    return None if other == uri else other


def spellings(text: str, *, anchored: bool = True) -> tuple[str, ...]:
    """Return the readable URIs, one or two, that a person can mean by a URI or an absolute path.

    A percent sign can be part of a name or of an encoding (`%20`): the text is taken as written, and decoded. If it is
    not `anchored`, it can begin anywhere in a URI, and is no path.
    """
    if anchored:
        text = text.replace(f"{_LOCAL}localhost/", f"{_LOCAL}/", 1) if text.startswith(_LOCAL) else text
        text = f"{_LOCAL}{text}" if text.startswith("/") else text
    decoded = _decoded(text)
    return tuple(dict.fromkeys((composed(text), composed(text if "\0" in decoded else decoded))))


def _decoded(text: str) -> str:
    return unquote_to_bytes(text).decode(errors="replace") if "%" in text else text


def absolute_place(text: str, folder: Path | None = None) -> str:
    """Return a relative path, or one that begins with ~, as an absolute one; URIs and other patterns unchanged.

    `folder` is that of relative paths, by default the working directory. A pattern that begins with a star is no path.
    """
    if not text or text.startswith(_OPEN) or ":" in text.partition("/")[0]:
        return text
    path = os.path.expanduser(text)
    return os.path.normpath(os.path.join(folder or Path.cwd(), path)) + "/" * (text.endswith("/") and path != "/")
