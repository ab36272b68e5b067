"""Where pictures are and how their bytes get here: files of this machine, object stores, the web, lists of those."""

from indexer.files import path_of_uri
from indexer.images import ImageLimits
from indexer.sources.local import read_file
from indexer.sources.manifests import MANIFEST_SUFFIXES, Manifest
from indexer.sources.places import given_uri, is_remote, is_web, name_of, shown, suffix_of
from indexer.sources.remote import BRIEF, Content, Patience, RateLimit, Remote, Stamp

__all__ = [
    "BRIEF",
    "MANIFEST_SUFFIXES",
    "Content",
    "Manifest",
    "Patience",
    "RateLimit",
    "Remote",
    "Stamp",
    "given_uri",
    "is_remote",
    "is_web",
    "name_of",
    "read",
    "read_briefly",
    "read_file",
    "shown",
    "suffix_of",
]


def read(uri: str, limits: ImageLimits, remote: Remote, stamp: Stamp | None = None) -> Content:
    """Return the bytes at a file: URI or one of elsewhere.

    Raises ImageTooManyBytes, UnreadableImage for what is no file, and the errors of the system (see `Remote`).
    """
    if is_remote(uri):
        return remote.read(uri, limits, stamp)
    return Content(read_file(path_of_uri(uri), limits))


_BRIEFLY = Remote(BRIEF)


def read_briefly(uri: str) -> bytes:
    """Return the bytes of a picture, as `read` does, for somebody who waits: few tries, short times."""
    return read(uri, ImageLimits(), _BRIEFLY).content
