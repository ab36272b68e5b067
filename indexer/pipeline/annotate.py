"""Record metadata of sidecars, lists and tables for the images of a run."""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.errors import WhatwhereError
from whatwhere.indexer.metadata.tables import read_table, uri_of_key
from whatwhere.indexer.metadata.values import Metadata
from whatwhere.indexer.pipeline.sidecars import metadata_beside
from whatwhere.indexer.sources.remote import Remote
from whatwhere.indexer.sources.scan import Found
from whatwhere.indexer.sources.uris import shown

log = logging.getLogger(__name__)


class TableRow(NamedTuple):
    """A row of a metadata table: the file's name as it is written there, and its values."""

    written: str
    values: Metadata


@dataclass(frozen=True)
class Annotator:
    """Sets metadata in a catalog, in transactions of `sources_at_once`; equal values write nothing."""

    catalog: Catalog
    remote: Remote
    workers: int | None  # threads that read sidecars; None: one per core
    sources_at_once: int
    gps: bool = False  # take positions from sidecars of other programs

    def set_sidecars(self, found: Found) -> tuple[int, int]:
        """Set the sidecars' metadata, none for images without one; return how many changed and how many are invalid.

        An invalid sidecar is logged; the values of its last valid version stay.
        """
        changed = invalid = 0

        def read(uri: str) -> Metadata | WhatwhereError:
            return metadata_beside(self.remote, uri, found.sidecars[uri], gps=self.gps)

        with ThreadPoolExecutor(self.workers or available_cores(), "sidecars") as pool:
            for group in batched(found.pictures, self.sources_at_once):
                said: dict[str, Metadata] = {uri: {} for uri in group if found.sidecar_is_known(uri)}
                beside = [uri for uri in group if uri in found.sidecars]
                for uri, values in zip(beside, pool.map(read, beside), strict=True):
                    if isinstance(values, WhatwhereError):
                        log.warning("sidecar invalid source=%s error=%s", shown(uri), values)
                        invalid += 1
                        del said[uri]
                    else:
                        said[uri] = values
                changed += self.catalog.set_metadata("sidecar", said)
        return changed, invalid

    def set_tables(self, found: Found, table: Mapping[str, TableRow]) -> tuple[int, list[str]]:
        """Set the metadata of lists and of a table by URI.

        Return how many sources changed, and the names, as written, of rows that match no file of this run.
        """
        changed = 0
        left = {uri: row.values for uri, row in table.items()}
        for manifest in found.manifests:
            for entries in batched(manifest.entries(), self.sources_at_once):
                # If both have values for an image, the table has precedence.
                said = {uri: {**(values or {}), **_values(table, uri)} for uri, values in entries}
                changed += self.catalog.set_metadata("file", said)
                for uri in said:
                    left.pop(uri, None)
        for rows in batched(left.items(), self.sources_at_once):
            changed += self.catalog.set_metadata("file", dict(rows))
        unmatched = [row.written for uri, row in table.items() if uri not in found.pictures]
        if unmatched:
            log.warning("metadata rows=%d match no file, for example %s", len(unmatched), shown(unmatched[0]))
        return changed, unmatched


def _values(table: Mapping[str, TableRow], uri: str) -> Metadata:
    return table[uri].values if uri in table else {}


def table_by_uri(path: Path) -> dict[str, TableRow]:
    """Return the rows of a metadata table by the URI of the file that each one names."""
    return {uri_of_key(key, path.parent): TableRow(key, values) for key, values in read_table(path).items()}
