"""Tell a collection that its files were moved: URIs below one place are rewritten to another. Needs no torch."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice, takewhile
from pathlib import Path
from unicodedata import normalize
from urllib.parse import quote, unquote

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.relocation import SourceEntry, SourceMove
from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.errors import InvalidRequest, WhatwhereError
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.pipeline.publishing import publish_changes
from whatwhere.indexer.sources.read import read
from whatwhere.indexer.sources.remote import Remote
from whatwhere.indexer.sources.scan import absolute
from whatwhere.indexer.sources.uris import is_remote, is_web, normalized_uri, scheme_of, shown
from whatwhere.indexer.storage.files import path_of_uri, sha256_of
from whatwhere.indexer.storage.readable import composed, readable

DEFAULT_CHECKED = 20


@dataclass(frozen=True)
class RelocateSettings:
    """How a relocation is checked: `checked` files by their content; up to `accepted` may be absent or different."""

    checked: int = DEFAULT_CHECKED
    accepted: int = 0
    dry_run: bool = False


@dataclass(frozen=True)
class Difference:
    """A file at its new place that is not the recorded one, with the reason."""

    uri: str
    reason: str


@dataclass(frozen=True)
class Relocated:
    """The result of a relocation.

    `sources` were below the old place. `merged` of them were recorded at their new place before. `checked` files were
    compared by their content, without those whose content was never recorded. If there are more differences than were
    accepted, nothing is `written`.
    """

    sources: int
    merged: int
    checked: int
    differences: tuple[Difference, ...]
    written: bool
    generation: int | None = None
    examples: tuple[tuple[str, str], ...] = ()  # the first old and new URIs


@dataclass
class _Plan:
    """What is written: moves by id, and the sources that give way to others (see `Catalog.move_sources`)."""

    moves: list[SourceMove] = field(default_factory=list)
    merged: dict[int, int | None] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    overlapping: bool = False


def relocate(
    collection: CollectionAddress,
    old: Path | str,
    new: Path | str,
    settings: RelocateSettings | None = None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Relocated:
    """Rewrite the URIs at and below `old` to `new`, in one transaction, and publish. No image is described again.

    Both are folders, or single files: local paths, file: URIs or remote URIs. `old` need not exist any more. Names that
    differ only in their Unicode normalization form are matched. `on_progress` gets a stage, the sources done and all.
    Raises InvalidRequest if nothing is recorded below `old`, or both are the same place, and the errors of opening a
    collection for writing.
    """
    settings = settings or RelocateSettings()
    there, here = _uri_of(old, "old"), _uri_of(new, "new")
    if there == here:
        raise InvalidRequest(f"{shown(there)} is both the old and the new place: give two places", field="new")
    remote = Remote()
    with open_for_writing(collection) as writer:
        entries = _entries_below(writer.catalog, there)
        if not entries:
            raise InvalidRequest(
                f"the collection has no image below {shown(there)}{_hint(writer.catalog)}", field="old"
            )
        renamed = _renamed(entries, there, here, remote)
        plan = _planned(writer.catalog, entries, renamed, there, here, remote)
        sample = _sample(entries, settings.checked)
        for done, entry in enumerate(sample, start=1):
            if (reason := _reason_to_refuse(entry, renamed[entry.id], remote)) is not None:
                plan.differences.append(Difference(renamed[entry.id], reason))
            on_progress("checked", done, len(sample))
        writes = not settings.dry_run and len(plan.differences) <= settings.accepted
        generation = None
        if writes:
            count = len(plan.moves)
            writer.catalog.move_sources(
                plan.moves,
                plan.merged,
                lambda done: on_progress("written", done, count),
                overlapping=plan.overlapping,
            )
            generation = publish_changes(writer).number
        return Relocated(
            len(entries),
            sum(entry.id in plan.merged for entry in entries),
            len(sample),
            tuple(plan.differences),
            writes,
            generation,
            tuple((entry.uri, renamed[entry.id]) for entry in islice(entries, 3)),
        )


def _uri_of(place: Path | str, name: str) -> str:
    """Return the URI of a place, without a slash at its end."""
    text = os.fspath(place)
    if not text.strip():
        raise InvalidRequest(f"the {name} place is empty: give a folder", field=name)
    if is_remote(text):
        try:
            return normalized_uri(text).rstrip("/")
        except ValueError as error:
            raise InvalidRequest(f"{shown(text)} {error}", field=name) from error
    path = path_of_uri(text) if text.startswith("file://") else Path(text)
    return absolute(path).as_uri().rstrip("/")


# --- what is recorded ---------------------------------------------------------------------------------------------


def _entries_below(catalog: Catalog, place: str) -> list[SourceEntry]:
    """Return the sources at and below a place, ordered by id, in any normalization form of its name."""
    start = _common_start([place, readable(place), *_forms(place)])
    wanted = readable(place)
    inside = f"{place}/"
    return [
        entry
        for entry in catalog.sources_from(start)
        if entry.uri.startswith(inside) or (found := readable(entry.uri)) == wanted or found.startswith(f"{wanted}/")
    ]


def _common_start(texts: Sequence[str]) -> str:
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in same)


def _forms(place: str) -> Iterator[str]:
    """Yield the encoded forms (NFC and NFD) of a URI."""
    for text in (normalize("NFC", readable(place)), normalize("NFD", readable(place))):
        yield text
        yield quote(text, safe=":/")


def _hint(catalog: Catalog) -> str:
    entry = next(iter(catalog.sources_from("")), None)
    return ": it has none at all" if entry is None else f"; one of its images is {shown(entry.uri)}"


# --- new URIs -----------------------------------------------------------------------------------------------------


def _renamed(entries: Sequence[SourceEntry], old: str, new: str, remote: Remote) -> dict[int, str]:
    """Return the new URI of each source by id; names have the form that exists at the new place."""
    parts = old.count("/") + 1
    convert = _converter(old, new)
    renamed = {}
    other_names: dict[int, str] = {}
    for entry in entries:
        below = "/".join(entry.uri.split("/")[parts:])
        try:
            renamed[entry.id] = f"{new}/{convert(below)}" if below else new
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"the name of {entry.uri} is not UTF-8, which names at {new} are: rename the file", field="new"
            ) from error
        if not (unquote(below) if "%" in below else below).isascii():
            other_names[entry.id] = renamed[entry.id]
    if other_names:
        find = _remote_name(new, remote) if is_remote(new) else _local_name()
        renamed.update((id_, find(uri)) for id_, uri in other_names.items())
    return renamed


def _converter(old: str, new: str) -> Callable[[str], str]:
    """Return the function from the end of a URI below the old place to that below the new one.

    Local and http(s) URIs are percent-encoded, other remote names are stored as they are.
    """
    from_encoded, to_encoded = (not is_remote(uri) or is_web(uri) for uri in (old, new))
    if from_encoded == to_encoded:
        return str
    return partial(unquote, errors="strict") if from_encoded else quote


def _local_name() -> Callable[[str], str]:
    """Return the function from a local URI to that of the file that exists, in any normalization form of its names."""
    folders: dict[Path, dict[str, str]] = {}

    def names_in(folder: Path) -> dict[str, str]:
        if folder not in folders:
            with suppress(OSError):
                folders[folder] = {_comparable(name): name for name in os.listdir(folder)}
        return folders.get(folder, {})

    def find(uri: str) -> str:
        path = path_of_uri(uri)
        if os.path.lexists(path):
            return uri
        found = Path(path.anchor)
        for part in path.parts[1:]:
            direct = found / part
            found = direct if os.path.lexists(direct) else found / names_in(found).get(_comparable(part), part)
        return found.as_uri() if os.path.lexists(found) else uri

    return find


def _comparable(name: str) -> str:
    return composed(os.fsencode(name).decode(errors="replace"))


def _remote_name(folder: str, remote: Remote) -> Callable[[str], str]:
    """Return the function from a remote URI to that of the object that exists, by one listing of the folder."""
    if is_web(folder):
        return str
    try:
        names = [uri for uri, _ in remote.files(f"{folder}/")]
    except OSError:  # the check of the sample says so
        names = []
    known = set(names)
    forms = {composed(name): name for name in names}
    return lambda uri: uri if uri in known else forms.get(composed(uri), uri)


# --- the plan -----------------------------------------------------------------------------------------------------


def _planned(
    catalog: Catalog,
    entries: Sequence[SourceEntry],
    renamed: dict[int, str],
    old: str,
    new: str,
    remote: Remote,
) -> _Plan:
    """Decide which sources get new URIs and which give way: to the same image there, or to another one."""
    plan = _Plan()
    moving = {entry.id for entry in entries}
    plan.overlapping = any(f"{one}/".startswith(f"{two}/") for one, two in ((old, new), (new, old)))
    occupied = {entry.uri: entry for entry in catalog.sources_from(new) if entry.id not in moving}
    same_kind = scheme_of(old) == scheme_of(new)
    living = _existing([renamed[entry.id] for entry in entries if entry.vanished], remote)
    winners: dict[int, SourceMove] = {}
    for entry in entries:
        uri = renamed[entry.id]
        other = occupied.get(uri)
        if other is not None and (other.content_hash is not None or entry.content_hash is None):
            same = other.image_id == entry.image_id
            plan.merged[entry.id] = other.id if same else None
            if not same and entry.content_hash is not None:
                plan.differences.append(Difference(uri, "is recorded with other content"))
            continue
        if other is not None:  # it could never be read
            plan.merged[other.id] = None
            winners.pop(other.id, None)
        occupied[uri] = entry
        winners[entry.id] = SourceMove(entry.id, uri, not entry.vanished or uri in living, same_kind)
    plan.moves = [*winners.values()]
    return plan


def _existing(uris: Iterable[str], remote: Remote) -> set[str]:
    """Return the URIs whose files exist; only those of vanished sources are asked for."""
    return {uri for uri in uris if (not remote.is_gone(uri) if is_remote(uri) else os.path.lexists(path_of_uri(uri)))}


# --- the check ----------------------------------------------------------------------------------------------------


def _sample(entries: Sequence[SourceEntry], count: int) -> list[SourceEntry]:
    """Return up to `count` sources with known content, evenly from all; those that had vanished only if all had."""
    known = [entry for entry in entries if entry.content_hash is not None]
    known = [entry for entry in known if not entry.vanished] or known
    step = max(len(known) / count, 1) if count else len(known) + 1
    return [known[int(place * step)] for place in range(min(count, len(known)))]


def _reason_to_refuse(entry: SourceEntry, uri: str, remote: Remote) -> str | None:
    """Return why the file at a URI is not the recorded one, None if it is."""
    try:
        if is_remote(uri):
            found = sha256(read(uri, ImageLimits(), remote).content).hexdigest()
        else:
            found = sha256_of(path_of_uri(uri))
    except OSError as error:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        return "does not exist" if gone else f"cannot be read: {error.strerror}"
    except WhatwhereError as error:
        return f"cannot be read: {error}"
    return None if found == entry.content_hash else "has other content"
