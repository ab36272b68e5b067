"""Read the sidecars of a local or remote image."""

from collections.abc import Sequence

from whatwhere.indexer.errors import InvalidRequest, WhatwhereError
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.metadata.sidecars import MAX_SIDECAR_BYTES, Sidecar, merged, parse_sidecar, read_sidecar
from whatwhere.indexer.metadata.values import Metadata
from whatwhere.indexer.sources.remote import Remote
from whatwhere.indexer.sources.uris import is_remote, name_of
from whatwhere.indexer.storage.files import path_of_uri


def metadata_beside(remote: Remote, uri: str, names: Sequence[str], *, gps: bool) -> Metadata | WhatwhereError:
    """Return the metadata in the sidecars of an image, merged, or the error if one of them cannot be read."""
    try:
        return merged(_sidecar(remote, uri, name, gps=gps) for name in names)
    except WhatwhereError as error:
        return error


def _sidecar(remote: Remote, uri: str, name: str, *, gps: bool) -> Sidecar:
    if not is_remote(uri):
        return read_sidecar(path_of_uri(uri).with_name(name), gps=gps)
    beside = f"{uri.rpartition('/')[0]}/{name}"
    try:
        content = remote.read(beside, ImageLimits(max_bytes=MAX_SIDECAR_BYTES)).content
    except OSError as error:
        raise InvalidRequest(f"{name_of(beside)}: cannot be read: {error.strerror}", field="metadata") from error
    return parse_sidecar(content, name_of(beside), gps=gps)
