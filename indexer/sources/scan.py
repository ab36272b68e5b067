"""Find pictures and their sidecars, and tell which pictures are gone from where they were found before."""

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
from whatwhere.indexer.sources.uris import given_uri, is_remote, is_web, shown, suffix_of
from whatwhere.indexer.storage.files import path_of_uri

log = logging.getLogger(__name__)


@dataclass
class Found:
    """What lies at some places: pictures by their URIs, each once, and what was passed over.

    The stamp is what a listing of elsewhere told, None of files of this machine and of what nobody listed.
    """

    pictures: dict[str, Stamp | None] = field(default_factory=dict)
    with_sidecar: set[str] = field(default_factory=set)  # those of `pictures` that a sidecar lies beside
    ignored: int = 0  # other files of the folders
    places: list[str] = field(default_factory=list)  # the URIs that were searched; those of folders end in "/"
    unlisted: list[str] = field(default_factory=list)  # folders that could not be listed, the same way
    manifests: list[ImageList] = field(default_factory=list)  # the lists that say something of their pictures

    def sidecar_is_known(self, uri: str) -> bool:
        """Tell whether a sidecar would have been seen: not of what is elsewhere and was not listed."""
        return not is_remote(uri) or self.pictures[uri] is not None


def find(paths: Sequence[Path | str], skip: Path | str | None = None, remote: Remote | None = None) -> Found:
    """Return the pictures at `paths`: files, folders, lists of pictures, and URIs of such.

    A picture that is named is taken whatever it is called, unless that is as a list is called; in folders the suffix
    decides. Links to folders are not followed, and the folder `skip` is left out. InvalidRequest for a path that does
    not exist, a folder of elsewhere that cannot be listed, a list that is not whole, or where a library is missing.
    """
    found = Found()
    remote = remote or Remote()
    for given in paths:
        text = os.fspath(given)
        if isinstance(given, str) and is_remote(given):
            _find_remote(_given(given), skip, found, remote)
        else:
            path = path_of_uri(text) if text.startswith("file://") else given
            _find_local(text, absolute(Path(path)), skip, found, remote)
    return found


def scan(paths: Sequence[Path | str], skip: Path | None = None) -> tuple[list[Path], int]:
    """Return the files of this machine that `find` finds, and how many other files the folders held.

    InvalidRequest where something of elsewhere is among them.
    """
    found = find(paths, skip)
    for uri in found.pictures:
        if is_remote(uri):
            raise InvalidRequest(f"{shown(uri)} is not on this machine: give folders and files that are", field="paths")
    return [path_of_uri(uri) for uri in found.pictures], found.ignored


def _find_local(given: str, path: Path, skip: Path | str | None, found: Found, remote: Remote) -> None:
    if path.is_dir():
        found.places.append(_folder_uri(path))
        left_out = None if skip is None or is_remote(str(skip)) else absolute(Path(skip))
        _search(path, left_out, found)
    elif not path.exists():
        raise InvalidRequest(
            f"{given} does not exist: give a folder or an image file, or a list of such", field="paths"
        )
    elif path.suffix.lower() in LIST_SUFFIXES:
        _take_all(ImageList.at(path, given, remote), found, remote)
    else:
        found.places.append(path.as_uri())
        _take(path.as_uri(), found)


def _take(uri: str, found: Found) -> None:
    """Add a picture that was named."""
    found.pictures.setdefault(uri, None)
    if not is_remote(uri) and os.path.lexists(sidecar_of(path_of_uri(uri))):
        found.with_sidecar.add(uri)


def _take_all(manifest: ImageList, found: Found, remote: Remote) -> None:
    """Add the pictures of a list."""
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
    """Add the image files of a folder and of all folders in it."""

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


# --- elsewhere --------------------------------------------------------------------------------------------------


def _given(text: str) -> str:
    try:
        return given_uri(text)
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
    """Add the pictures below a folder of elsewhere."""
    sidecars = set()
    images = []
    try:
        for uri, stamp in remote.files(folder):
            if left_out is not None and uri.startswith(left_out):
                continue
            if not uri.isprintable():
                log.warning("passed over uri=%s: characters that cannot be printed", ascii(uri))
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
        return InvalidRequest(f"{uri} does not exist: look for its bucket and its name", field="paths")
    return InvalidRequest(
        f"{uri} cannot be listed: {error.strerror}: look whether the credentials and the address of the store are "
        "right (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ... for s3://)",
        field="paths",
    )


# --- gone -------------------------------------------------------------------------------------------------------


def gone(uris: Iterable[str], unlisted: Collection[str], remote: Remote | None = None) -> list[str]:
    """Return the URIs, all below places that were searched and not found there, whose picture is not there any more.

    What merely is out of sight is not gone: a file below a folder that could not be listed, or that the file system
    says anything else of than that there is none.
    """
    remote = remote or Remote()
    return [uri for uri in uris if not uri.startswith(tuple(unlisted)) and _is_gone(uri, remote)]


def _is_gone(uri: str, remote: Remote) -> bool:
    if is_remote(uri):
        # A listing shows all that is called like an image.
        return suffix_of(uri) in SUFFIXES or remote.is_gone(uri)
    try:
        path_of_uri(uri).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def absolute(path: Path) -> Path:
    """Return the path from the root on, links as they are."""
    return Path(os.path.abspath(path))


def _folder_uri(folder: Path) -> str:
    return folder.as_uri().rstrip("/") + "/"
