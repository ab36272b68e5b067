"""Keep the pictures that are drawn from replacing photographs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.sources.uris import is_remote
from whatwhere.indexer.storage.files import path_of_uri, sha256_of
from whatwhere.indexer.storage.outputs import Output
from whatwhere.service.results import StoredImage


@runtime_checkable
class KnowsOriginals(Protocol):
    """Looks for a file among the indexed originals: a collection that is open here does, a server does not."""

    def is_original(self, path: Path) -> bool:
        """Tell whether a file is an indexed original."""


def is_original(catalog: Catalog, path: Path) -> bool:
    """Tell whether a file is an indexed original: by its place, or by its content (a link to it, or a copy)."""
    if not path.is_file():
        return False
    places = {path.absolute().as_uri(), path.resolve().as_uri()}
    if any(catalog.content_of(uri) is not None for uri in places):
        return True
    return catalog.id_of_content(sha256_of(path)) is not None


def spare_originals(output: Output, answering: object) -> None:
    """Raise InvalidRequest if the file to write is an indexed original of the collection that answers."""
    if isinstance(answering, KnowsOriginals) and answering.is_original(output.path):
        raise original_lost(output)


def original_lost(output: Output) -> InvalidRequest:
    """Return the error of writing over an indexed original."""
    message = f"{output.path}: is an indexed image, and would be lost: give another name"
    return InvalidRequest(message, field=output.field)


def spare_stored(output: Output, images: Iterable[StoredImage]) -> None:
    """Raise InvalidRequest if the file to write is that of a stored image, also of one that a server knows."""
    output.spare(path_of_uri(uri) for image in images for uri in image.uris if not is_remote(uri))
