"""Read the sidecar of a local or remote image."""

from whatwhere.indexer.errors import InvalidRequest, WhatwhereError
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.metadata.sidecars import (
    MAX_SIDECAR_BYTES,
    SIDECAR_SUFFIX,
    read_sidecar,
    sidecar_of,
    sidecar_values,
)
from whatwhere.indexer.metadata.values import Metadata
from whatwhere.indexer.sources.remote import Remote
from whatwhere.indexer.sources.uris import is_remote, name_of
from whatwhere.indexer.storage.files import path_of_uri


def sidecar(remote: Remote, uri: str) -> Metadata | WhatwhereError:
    """Return the metadata in the sidecar of an image, or the error if it cannot be read."""
    try:
        if not is_remote(uri):
            return read_sidecar(sidecar_of(path_of_uri(uri)))
        limits = ImageLimits(max_bytes=MAX_SIDECAR_BYTES)
        name = name_of(uri) + SIDECAR_SUFFIX
        return sidecar_values(remote.read(uri + SIDECAR_SUFFIX, limits).content, name)
    except WhatwhereError as error:
        return error
    except OSError as error:
        return InvalidRequest(f"{name_of(uri)}{SIDECAR_SUFFIX}: cannot be read: {error.strerror}", field="metadata")
