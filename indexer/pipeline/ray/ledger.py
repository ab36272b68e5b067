"""The actor of Ray that workers query. It needs no network: this imports no torch."""

from collections.abc import Sequence

from whatwhere.indexer.catalog.records import Source
from whatwhere.indexer.collection.layout import CollectionAddress, Layout
from whatwhere.indexer.collection.stores import open_catalog


class Ledger:
    """Answers the queries of workers about the catalog and about recorded chunks, on the machine of the run.

    Workers on other machines cannot open a SQLite file.
    """

    def __init__(self, collection: CollectionAddress, window: int) -> None:
        self._catalog = open_catalog(Layout.at(collection))
        self._window = window
        self._recorded = 0

    def has_content(self, content_hash: str, retry_failed: bool) -> bool:
        """Tell whether this content needs no description."""
        return self._catalog.has_content(content_hash, retry_failed=retry_failed)

    def content_of(self, uri: str) -> str | None:
        """Return the SHA-256 of the content last read at a URI, None without any."""
        return self._catalog.content_of(uri)

    def unchanged(self, sources: Sequence[Source], retry_failed: bool) -> set[str]:
        """Return the URIs of unchanged sources."""
        return self._catalog.unchanged(sources, retry_failed=retry_failed)

    def recorded(self, chunks: int) -> None:
        """Set the number of recorded chunks."""
        self._recorded = chunks

    def may_begin(self, number: int) -> bool:
        """Tell whether a chunk is within the window after the recorded ones."""
        return number < self._recorded + self._window
