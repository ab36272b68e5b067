"""Find images and their sidecars, name what is passed over, and detect which images no longer exist."""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import quote_from_bytes

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.images.decode import SUFFIXES
from whatwhere.indexer.images.signatures import MAGIC_BYTES, looks_like_image
from whatwhere.indexer.metadata.sidecar_names import possible_sidecars, sidecars_of
from whatwhere.indexer.sources.exclusions import LINKED_FOLDER, NO_MEDIA, NO_MEDIA_FOLDER, Exclusions
from whatwhere.indexer.sources.kinds import (
    Skip,
    known_skip,
    skip_of_content,
    skip_of_error,
    skip_of_listing,
    skip_of_special,
    suffix_of_name,
)
from whatwhere.indexer.sources.lists import LIST_SUFFIXES, ImageList
from whatwhere.indexer.sources.local import read_head
from whatwhere.indexer.sources.remote import Remote, Stamp
from whatwhere.indexer.sources.uris import is_remote, is_web, normalized_uri, shown, suffix_of
from whatwhere.indexer.storage.files import path_of_uri

log = logging.getLogger(__name__)


@dataclass
class Found:
    """The result of a scan: images by URI, each once, and the files and folders that were passed over.

    A stamp comes from a remote listing; it is None for local files and for images that no listing covered.
    """

    pictures: dict[str, Stamp | None] = field(default_factory=dict)
    sidecars: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of `pictures`: names of files beside them
    skipped: dict[str, Skip] = field(default_factory=dict)  # by URI; those of folders end in "/"
    places: list[str] = field(default_factory=list)  # the URIs that were scanned; those of folders end in "/"
    unlisted: list[str] = field(default_factory=list)  # URIs of folders that could not be listed, also ending in "/"
    manifests: list[ImageList] = field(default_factory=list)  # the lists with metadata

    @property
    def ignored(self) -> int:
        """The number of files that were passed over, without those in folders that were not searched."""
        return sum(1 for uri in self.skipped if not uri.endswith("/"))

    def take(self, uri: str, stamp: Stamp | None = None) -> None:
        """Add an image."""
        self.pictures.setdefault(uri, stamp)
        self.skipped.pop(uri, None)

    def skip(self, uri: str, why: Skip) -> None:
        """Pass over a file or a folder, unless it is given by name or was found by another way."""
        if uri not in self.pictures and not (uri.endswith("/") and uri in self.places):
            self.skipped[uri] = why

    def searching(self, folder: str) -> None:
        """Note the URI of a folder that was given and is searched."""
        self.places.append(folder)
        self.skipped.pop(folder, None)

    def is_left_out(self, uri: str) -> bool:
        """Tell whether a rule leaves out the file at a URI, or a folder above it."""
        if uri in self.pictures:
            return False
        at = len(uri)
        while at > 0:
            why = self.skipped.get(uri[:at])
            if why is not None and why.by_rule:
                return True
            at = uri.rfind("/", 0, at - 1) + 1
        return False

    def sidecar_is_known(self, uri: str) -> bool:
        """Tell whether the scan would have seen a sidecar; it cannot for a remote image that no listing covered."""
        return not is_remote(uri) or self.pictures[uri] is not None


def find(
    paths: Sequence[Path | str],
    skip: Path | str | None = None,
    remote: Remote | None = None,
    exclusions: Exclusions | None = None,
) -> Found:
    """Find the images at `paths`: image files, folders, lists of images, local or remote.

    A file given by name is taken as an image, or as a list if it has a list's extension. Files in folders are chosen by
    extension; a local file of an unknown extension, or without one, by its first bytes. `exclusions` leave out files
    and folders. Links to folders are not followed, and the folder `skip` is left out.
    Raises InvalidRequest if a path does not exist, a remote folder cannot be listed, a list is malformed, or a library
    is missing.
    """
    found = Found()
    scan_ = _Scan(found, remote or Remote(), exclusions or Exclusions(), skip)
    for given in paths:
        text = os.fspath(given)
        if isinstance(given, str) and is_remote(given):
            scan_.find_remote(_normalized(given))
        else:
            path = path_of_uri(text) if text.startswith("file://") else given
            scan_.find_local(text, absolute(Path(path)))
    return found


def scan(paths: Sequence[Path | str], skip: Path | None = None) -> tuple[list[Path], int]:
    """Find local images as `find` does; return their paths and the number of other files in the folders.

    Raises InvalidRequest as `find`, and if an image is remote.
    """
    found = find(paths, skip)
    for uri in found.pictures:
        if is_remote(uri):
            raise InvalidRequest(f"{shown(uri)} is remote: use local files and folders", field="paths")
    return [path_of_uri(uri) for uri in found.pictures], found.ignored


@dataclass(frozen=True)
class _Scan:
    """One scan: where it adds what it finds, and its rules."""

    found: Found
    remote: Remote
    exclusions: Exclusions
    left_out: Path | str | None  # the collection

    def find_local(self, given: str, path: Path) -> None:
        """Find the images at a local path."""
        if path.is_dir():
            self.found.searching(_folder_uri(path))
            self._search(path)
        elif not path.exists():
            raise InvalidRequest(
                f"{given} does not exist: use a folder, an image file or a list of images", field="paths"
            )
        elif path.suffix.lower() in LIST_SUFFIXES:
            self._take_all(ImageList.at(path, given, self.remote))
        else:
            self.found.places.append(path.as_uri())
            self._take(path.as_uri())

    def find_remote(self, uri: str) -> None:
        """Find the images at a remote URI."""
        self.remote.require(uri)
        suffix = suffix_of(uri)
        if suffix in LIST_SUFFIXES:
            self._take_all(ImageList.at(uri, shown(uri), self.remote))
        elif is_web(uri) or suffix in SUFFIXES or not _is_folder(uri, self.remote):
            self._take(uri)
        else:
            folder = uri.rstrip("/") + "/"
            self.found.searching(folder)
            self._list(folder)

    def _take(self, uri: str) -> None:
        """Add an image given by name."""
        self.found.take(uri)
        if not is_remote(uri):
            path = path_of_uri(uri)
            names = tuple(name for name in possible_sidecars(path.name) if os.path.lexists(path.with_name(name)))
            if names:
                self.found.sidecars[uri] = names

    def _take_all(self, manifest: ImageList) -> None:
        """Add the images of a list."""
        schemes = set()
        for uri, _ in manifest.entries():
            scheme = uri.partition(":")[0]
            if scheme not in schemes and is_remote(uri):
                self.remote.require(uri)
            schemes.add(scheme)
            self._take(uri)
        if manifest.has_metadata:
            self.found.manifests.append(manifest)

    def _search(self, root: Path) -> None:
        """Add the image files of a folder and its subfolders."""
        left_out = None if self.left_out is None or is_remote(str(self.left_out)) else absolute(Path(self.left_out))

        def on_error(error: OSError) -> None:
            folder = Path(os.fsdecode(error.filename or root))
            log.warning("folder not listed path=%s error=%s", folder, error.strerror)
            self.found.unlisted.append(_folder_uri(folder))

        for name, folders, names in os.walk(root, onerror=on_error):
            folder = Path(name)
            start = _folder_uri(folder)
            relative = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
            if relative and NO_MEDIA in names:
                self.found.skip(start, NO_MEDIA_FOLDER)
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if folder / name != left_out)
            folders[:] = [name for name in folders if self._is_searched(folder / name, start, relative + name)]
            self._add(_Listing(start, relative, sorted(names), {}), partial(_head_skip, name))

    def _is_searched(self, folder: Path, start: str, relative: str) -> bool:
        why = self.exclusions.of_folder(folder.name, relative) or (LINKED_FOLDER if folder.is_symlink() else None)
        if why is not None:
            self.found.skip(f"{start}{_quoted(folder.name)}/", why)
        return why is None

    def _list(self, folder: str) -> None:
        """Add the images of a remote folder and its subfolders."""
        left_out = None if self.left_out is None else f"{str(self.left_out).rstrip('/')}/"
        listings: dict[str, _Listing] = {}
        try:
            for uri, stamp in self.remote.files(folder):
                if left_out is not None and uri.startswith(left_out):
                    continue
                start, _, name = uri.rpartition("/")
                relative = f"{start}/"[len(folder) :]
                listing = listings.setdefault(relative, _Listing(f"{start}/", relative, [], {}))
                listing.names.append(name)
                listing.stamps[name] = stamp
        except OSError as error:
            raise _cannot_be_listed(folder, error) from error
        bare = {relative for relative, listing in listings.items() if relative and NO_MEDIA in listing.stamps}
        for relative, listing in listings.items():
            if not self._is_below_skipped(folder, relative, bare):
                self._add(listing, _listing_skip)

    def _is_below_skipped(self, folder: str, relative: str, bare: Collection[str]) -> bool:
        """Tell whether a remote folder, or one above it, is left out; if so, name the highest one."""
        at = 0
        while at < len(relative):
            start, at = at, relative.index("/", at) + 1
            why = self.exclusions.of_folder(relative[start : at - 1], relative[: at - 1])
            if why is None and relative[:at] in bare:
                why = NO_MEDIA_FOLDER
            if why is not None:
                self.found.skip(folder + relative[:at], why)
                return True
        return False

    def _add(self, listing: "_Listing", skip_of: Callable[[str], Skip | None]) -> None:
        """Add the images of one folder with their sidecars; name the rest.

        `skip_of` decides on a file whose extension is neither an image's nor known: None if it is an image.
        """
        images: list[str] = []
        others: dict[str, Skip] = {}
        for name in listing.names:
            suffix = suffix_of_name(name)
            why = self.exclusions.of_file(name, listing.relative + name)
            if why is not None:
                self.found.skip(listing.uri(name), why)
            elif not listing.is_storable(name):
                log.warning("skipped uri=%s: unprintable characters", ascii(listing.uri(name)))
                self.found.skip(ascii(listing.uri(name))[1:-1], _UNPRINTABLE)
            elif suffix in SUFFIXES or (why := known_skip(suffix) or skip_of(name)) is None:
                images.append(name)
            else:
                others[name] = why
        beside = sidecars_of(images, others)
        for name in images:
            uri = listing.uri(name)
            self.found.take(uri, listing.stamps.get(name))
            if name in beside:
                self.found.sidecars[uri] = beside[name]
        used = {name for names in beside.values() for name in names}
        for name, why in others.items():
            if name not in used:
                self.found.skip(listing.uri(name), why)


@dataclass(frozen=True)
class _Listing:
    """The files of one folder: its URI and its path below the given folder, both with "/" at the end."""

    start: str
    relative: str  # "" for the given folder itself
    names: list[str]
    stamps: dict[str, Stamp]  # of remote files

    def uri(self, name: str) -> str:
        """Return the URI of a file."""
        return self.start + (name if self.stamps else _quoted(name))

    def is_storable(self, name: str) -> bool:
        """Tell whether the URI of a file can be stored: names of local files are escaped."""
        return not self.stamps or self.uri(name).isprintable()


_UNPRINTABLE = Skip("unprintable name", "its name has unprintable characters: rename the object")


def _quoted(name: str) -> str:
    return quote_from_bytes(os.fsencode(name))


def _listing_skip(name: str) -> Skip | None:
    return skip_of_listing(suffix_of_name(name))


def _head_skip(folder: str, name: str) -> Skip | None:
    """Return why a local file is no image by its first bytes, None if it is one."""
    suffix = suffix_of_name(name)
    try:
        head = read_head(os.path.join(folder, name), MAGIC_BYTES)
    except OSError as error:
        return skip_of_error(suffix, error)
    if head is None:
        return skip_of_special(suffix)
    return None if looks_like_image(head) else skip_of_content(suffix)


# --- remote -----------------------------------------------------------------------------------------------------


def _normalized(text: str) -> str:
    try:
        return normalized_uri(text)
    except ValueError as error:
        raise InvalidRequest(f"{shown(text)} {error}", field="paths") from error


def _is_folder(uri: str, remote: Remote) -> bool:
    if uri.endswith("/"):
        return True
    try:
        return remote.is_folder(uri)
    except OSError as error:
        raise _cannot_be_listed(uri, error) from error


def _cannot_be_listed(uri: str, error: OSError) -> InvalidRequest:
    if isinstance(error, FileNotFoundError):
        return InvalidRequest(f"{uri} does not exist: check the bucket and the name", field="paths")
    return InvalidRequest(
        f"{uri} cannot be listed: {error.strerror}: check the credentials and the endpoint of the store "
        "(AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ... for s3://)",
        field="paths",
    )


# --- gone -------------------------------------------------------------------------------------------------------


def gone(uris: Iterable[str], unlisted: Collection[str], remote: Remote | None = None) -> list[str]:
    """Return those of `uris` whose image no longer exists; all are below scanned places and were not found there.

    Images below an unlisted folder, or for which the file system reports another error than absence, are not gone.
    """
    remote = remote or Remote()
    return [uri for uri in uris if not uri.startswith(tuple(unlisted)) and _is_gone(uri, remote)]


def _is_gone(uri: str, remote: Remote) -> bool:
    if is_remote(uri):
        # A listing covers all files with an image extension.
        return suffix_of(uri) in SUFFIXES or remote.is_gone(uri)
    try:
        path_of_uri(uri).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def absolute(path: Path) -> Path:
    """Return the absolute path without resolving links."""
    return Path(os.path.abspath(path))


def _folder_uri(folder: Path) -> str:
    return folder.as_uri().rstrip("/") + "/"
