"""Find images and their sidecars, and detect which images found before no longer exist."""

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_from_bytes

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.images.decode import SUFFIXES
from whatwhere.indexer.metadata.sidecars import SIDECAR_SUFFIX, sidecar_of
from whatwhere.indexer.sources.lists import LIST_SUFFIXES, ImageList
from whatwhere.indexer.sources.remote import Remote, Stamp
from whatwhere.indexer.sources.uris import is_remote, is_web, normalized_uri, shown, suffix_of
from whatwhere.indexer.storage.files import path_of_uri

log = logging.getLogger(__name__)


@dataclass
class Found:
    """The result of a scan: images by URI, each once, and the files and folders that were skipped.

    A stamp comes from a remote listing; it is None for local files and for images that no listing covered.
    """

    pictures: dict[str, Stamp | None] = field(default_factory=dict)
    with_sidecar: set[str] = field(default_factory=set)  # those of `pictures` that have a sidecar
    ignored: int = 0  # other files in the folders
    places: list[str] = field(default_factory=list)  # the URIs that were scanned; those of folders end in "/"
    unlisted: list[str] = field(default_factory=list)  # URIs of folders that could not be listed, also ending in "/"
    manifests: list[ImageList] = field(default_factory=list)  # the lists with metadata

    def sidecar_is_known(self, uri: str) -> bool:
        """Tell whether the scan would have seen a sidecar; it cannot for a remote image that no listing covered."""
        return not is_remote(uri) or self.pictures[uri] is not None


def find(paths: Sequence[Path | str], skip: Path | str | None = None, remote: Remote | None = None) -> Found:
    """Find the images at `paths`: image files, folders, lists of images, local or remote.

    A file given by name is taken as an image, or as a list if it has a list's extension; files in folders are chosen
    by extension. Links to folders are not followed, and the folder `skip` is left out.
    Raises InvalidRequest if a path does not exist, a remote folder cannot be listed, a list is malformed, or a library
    is missing.
    """
    found = Found()
    remote = remote or Remote()
    for given in paths:
        text = os.fspath(given)
        if isinstance(given, str) and is_remote(given):
            _find_remote(_normalized(given), skip, found, remote)
        else:
            path = path_of_uri(text) if text.startswith("file://") else given
            _find_local(text, absolute(Path(path)), skip, found, remote)
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


def _find_local(given: str, path: Path, skip: Path | str | None, found: Found, remote: Remote) -> None:
    if path.is_dir():
        found.places.append(_folder_uri(path))
        left_out = None if skip is None or is_remote(str(skip)) else absolute(Path(skip))
        _search(path, left_out, found)
    elif not path.exists():
        raise InvalidRequest(f"{given} does not exist: use a folder, an image file or a list of images", field="paths")
    elif path.suffix.lower() in LIST_SUFFIXES:
        _take_all(ImageList.at(path, given, remote), found, remote)
    else:
        found.places.append(path.as_uri())
        _take(path.as_uri(), found)


def _take(uri: str, found: Found) -> None:
    """Add an image given by name."""
    found.pictures.setdefault(uri, None)
    if not is_remote(uri) and os.path.lexists(sidecar_of(path_of_uri(uri))):
        found.with_sidecar.add(uri)


def _take_all(manifest: ImageList, found: Found, remote: Remote) -> None:
    """Add the images of a list."""
    schemes = set()
    for uri, _ in manifest.entries():
        scheme = uri.partition(":")[0]
        if scheme not in schemes and is_remote(uri):
            remote.require(uri)
        schemes.add(scheme)
        _take(uri, found)
    if manifest.has_metadata:
        found.manifests.append(manifest)


def _search(root: Path, left_out: Path | None, found: Found) -> None:
    """Add the image files of a folder and its subfolders."""

    def on_error(error: OSError) -> None:
        folder = Path(os.fsdecode(error.filename or root))
        log.warning("folder not listed path=%s error=%s", folder, error.strerror)
        found.unlisted.append(_folder_uri(folder))

    for name, folders, names in os.walk(root, onerror=on_error):
        folder = Path(name)
        folders[:] = sorted(name for name in folders if folder / name != left_out)
        images = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
        start = _folder_uri(folder)
        uris = {name: start + quote_from_bytes(os.fsencode(name)) for name in images}
        sidecars = {name + SIDECAR_SUFFIX for name in images}.intersection(names)
        found.with_sidecar.update(uris[name.removesuffix(SIDECAR_SUFFIX)] for name in sidecars)
        found.ignored += len(names) - len(images) - len(sidecars)
        for uri in uris.values():
            found.pictures.setdefault(uri, None)


# --- remote -----------------------------------------------------------------------------------------------------


def _normalized(text: str) -> str:
    try:
        return normalized_uri(text)
    except ValueError as error:
        raise InvalidRequest(f"{shown(text)} {error}", field="paths") from error


def _find_remote(uri: str, skip: Path | str | None, found: Found, remote: Remote) -> None:
    remote.require(uri)
    suffix = suffix_of(uri)
    if suffix in LIST_SUFFIXES:
        _take_all(ImageList.at(uri, shown(uri), remote), found, remote)
    elif is_web(uri) or suffix in SUFFIXES or not _is_folder(uri, remote):
        _take(uri, found)
    else:
        folder = uri.rstrip("/") + "/"
        found.places.append(folder)
        _list(folder, None if skip is None else f"{str(skip).rstrip('/')}/", found, remote)


def _is_folder(uri: str, remote: Remote) -> bool:
    if uri.endswith("/"):
        return True
    try:
        return remote.is_folder(uri)
    except OSError as error:
        raise _cannot_be_listed(uri, error) from error


def _list(folder: str, left_out: str | None, found: Found, remote: Remote) -> None:
    """Add the images of a remote folder and its subfolders."""
    sidecars = set()
    images = []
    try:
        for uri, stamp in remote.files(folder):
            if left_out is not None and uri.startswith(left_out):
                continue
            if not uri.isprintable():
                log.warning("skipped uri=%s: unprintable characters", ascii(uri))
                found.ignored += 1
            elif suffix_of(uri) in SUFFIXES:
                images.append(uri)
                found.pictures[uri] = stamp
            elif uri.endswith(SIDECAR_SUFFIX):
                sidecars.add(uri)
            else:
                found.ignored += 1
    except OSError as error:
        raise _cannot_be_listed(folder, error) from error
    beside = {uri for uri in images if uri + SIDECAR_SUFFIX in sidecars}
    found.with_sidecar |= beside
    found.ignored += len(sidecars) - len(beside)


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
