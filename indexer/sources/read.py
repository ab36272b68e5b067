"""Read a picture's bytes from wherever it is."""

from whatwhere.indexer.images.decode import ImageLimits
from whatwhere.indexer.sources.local import read_file
from whatwhere.indexer.sources.remote import Content, Remote, Stamp
from whatwhere.indexer.sources.uris import is_remote
from whatwhere.indexer.storage.files import path_of_uri


def read(uri: str, limits: ImageLimits, remote: Remote, stamp: Stamp | None = None) -> Content:
    """Return the bytes at a file: URI or one of elsewhere.

    Raises ImageTooManyBytes, UnreadableImage for what is no file, and the errors of the system (see `Remote`).
    """
    if is_remote(uri):
        return remote.read(uri, limits, stamp)
    return Content(read_file(path_of_uri(uri), limits))
