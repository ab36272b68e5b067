"""Read an image's bytes from its source, local or remote."""

from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.sources.local import read_file
from whatwhere.indexer.sources.remote import Content, Remote, Stamp
from whatwhere.indexer.sources.uris import is_remote
from whatwhere.indexer.storage.files import path_of_uri


def read(uri: str, limits: ImageLimits, remote: Remote, stamp: Stamp | None = None) -> Content:
    """Read the bytes at a local (file:) or remote URI.

    Raises ImageTooManyBytes if they exceed the limit, UnreadableImage if the source is not a file, and OSError (see
    `Remote`) if it cannot be read.
    """
    if is_remote(uri):
        return remote.read(uri, limits, stamp)
    return Content(read_file(path_of_uri(uri), limits))
