"""Record metadata of sidecars, lists and tables for the images of a run."""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from whatwhere.indexer.batched import batched
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.errors import WhatwhereError
from whatwhere.indexer.metadata.tables import read_table, uri_of_key
from whatwhere.indexer.metadata.values import Metadata
from whatwhere.indexer.pipeline.sidecars import sidecar
from whatwhere.indexer.sources.remote import Remote
from whatwhere.indexer.sources.scan import Found
from whatwhere.indexer.sources.uris import shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotator:
    """Sets metadata in a catalog, in transactions of `sources_at_once`; equal values write nothing."""

    catalog: Catalog
    remote: Remote
    workers: int | None  # threads that read sidecars; None: one per core
    sources_at_once: int

    def set_sidecars(self, found: Found) -> tuple[int, int]:
        """Set the sidecars' metadata, none for images without one; return how many changed and how many are invalid.

        An invalid sidecar is logged; the values of its last valid version stay.
        """
        changed = invalid = 0
        with ThreadPoolExecutor(self.workers or available_cores(), "sidecars") as pool:
            for group in batched(found.pictures, self.sources_at_once):
                said: dict[str, Metadata] = {uri: {} for uri in group if found.sidecar_is_known(uri)}
                beside = [uri for uri in group if uri in found.with_sidecar]
                for uri, values in zip(beside, pool.map(partial(sidecar, self.remote), beside), strict=True):
                    if isinstance(values, WhatwhereError):
                        log.warning("sidecar invalid source=%s error=%s", shown(uri), values)
                        invalid += 1
                        del said[uri]
                    else:
                        said[uri] = values
                changed += self.catalog.set_metadata("sidecar", said)
        return changed, invalid

    def set_tables(self, found: Found, table: Mapping[str, Metadata]) -> tuple[int, int]:
        """Set the metadata of lists and of a table by URI; return how many sources changed and rows are unmatched."""
        changed = 0
        left = dict(table)
        for manifest in found.manifests:
            for entries in batched(manifest.entries(), self.sources_at_once):
                # If both have values for an image, the table has precedence.
                said = {uri: {**(values or {}), **table.get(uri, {})} for uri, values in entries}
                changed += self.catalog.set_metadata("file", said)
                for uri in said:
                    left.pop(uri, None)
        for rows in batched(left.items(), self.sources_at_once):
            changed += self.catalog.set_metadata("file", dict(rows))
        unmatched = table.keys() - found.pictures.keys()
        if unmatched:
            log.warning("metadata rows=%d match no file, for example %s", len(unmatched), shown(min(unmatched)))
        return changed, len(unmatched)


def table_by_uri(path: Path) -> dict[str, Metadata]:
    """Return the rows of a metadata table by the URI of the file that each one names."""
    return {uri_of_key(key, path.parent): values for key, values in read_table(path).items()}
