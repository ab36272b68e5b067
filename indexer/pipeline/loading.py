"""Read and decode images in threads, ahead of the network."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol, TypeVar

from whatwhere.indexer.catalog.records import Source
from whatwhere.indexer.errors import UnreadableImage, WhatwhereError
from whatwhere.indexer.images.decode import DecodedImage, decode_image
from whatwhere.indexer.images.exif import exif
from whatwhere.indexer.images.limits import MIB
from whatwhere.indexer.metadata.values import Metadata
from whatwhere.indexer.pipeline.settings import ReadSettings
from whatwhere.indexer.sources.read import read
from whatwhere.indexer.sources.remote import Remote, Stamp
from whatwhere.indexer.sources.uris import is_remote, name_of
from whatwhere.indexer.storage.files import path_of_uri

# Files above this size are read and decoded one at a time, so that memory does not grow with the number of threads.
_LARGE_BYTES = 64 * MIB
_one_large_file = threading.Lock()
_NEVER_SEEN = -1  # `modified_ns` of an unlisted remote source: the loader requests the stamp

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Known(Protocol):
    """The queries of a loader; see `Catalog`."""

    def has_content(self, content_hash: str, *, retry_failed: bool = False) -> bool:
        """Tell whether this content needs no description."""

    def content_of(self, uri: str) -> str | None:
        """Return the SHA-256 of the content last read at a URI, None without any."""

    def unchanged(self, sources: Sequence[Source], *, retry_failed: bool = False) -> set[str]:
        """Return the URIs of unchanged sources."""


@dataclass(frozen=True)
class Loaded:
    """A source after reading: decoded, known by content, or failed. `exif` is None if it was not requested.

    `unchanged`: the stamp of an unlisted source shows that it needs no reading. `gone`: the file does not exist.
    """

    source: Source
    content_hash: str | None = None
    byte_count: int = 0
    decoded: DecodedImage | None = None
    error: WhatwhereError | None = None
    exif: Metadata | None = None
    unchanged: bool = False
    gone: bool = False


@dataclass(frozen=True)
class Loader:
    """Reads, hashes and decodes one source; content that the catalog has is not decoded."""

    catalog: Known
    settings: ReadSettings
    remote: Remote

    def __call__(self, source: Source) -> Loaded:
        """Return the loaded source; errors are part of it."""
        with _one_large_file if source.byte_count > _LARGE_BYTES else nullcontext():
            return self._loaded(source)

    def _loaded(self, source: Source) -> Loaded:
        content_hash = None
        try:
            if is_remote(source.uri):
                source = self._asked_for(source)
                if self._is_unchanged(source):
                    return Loaded(source, unchanged=True)
            content, source = self._read(source)
            content_hash = hashlib.sha256(content).hexdigest()
            wanted = self.settings
            found = exif(content, gps=wanted.exif_gps) if wanted.exif or wanted.exif_gps else None
            if self.catalog.has_content(content_hash, retry_failed=wanted.retry_failed):
                return Loaded(_recorded(source), content_hash, exif=found)
            decoded = decode_image(content, name_of(source.uri), limits=wanted.limits)
        except WhatwhereError as error:
            # without the traceback, which would keep bytes and pixels in memory until the error is handled
            return Loaded(_recorded(source), content_hash, source.byte_count, error=error.with_traceback(None))
        except OSError as error:
            reason = UnreadableImage(f"{name_of(source.uri)}: cannot be read: {error.strerror}")
            gone = isinstance(error, FileNotFoundError | NotADirectoryError)
            return Loaded(_recorded(source), None, source.byte_count, error=reason, gone=gone)
        return Loaded(_recorded(source), content_hash, len(content), decoded, exif=found)

    def _asked_for(self, source: Source) -> Source:
        """Request the stamp of an unlisted source if it was read before; else the response with its content has it."""
        if self.settings.checksum or source.modified_ns != _NEVER_SEEN or self.catalog.content_of(source.uri) is None:
            return source
        return _stamped(source.uri, self.remote.stamp(source.uri))

    def _is_unchanged(self, source: Source) -> bool:
        """Tell whether a remote source is unchanged; listed sources were compared before."""
        return (
            not self.settings.checksum
            and source.modified_ns != _NEVER_SEEN
            and source.uri in self.catalog.unchanged([source], retry_failed=self.settings.retry_failed)
        )

    def _read(self, source: Source) -> tuple[bytes, Source]:
        stamp = None if source.modified_ns == _NEVER_SEEN else Stamp(source.byte_count, source.modified_ns)
        found = read(source.uri, self.settings.limits, self.remote, stamp)
        if found.stamp is None:
            return found.content, source
        return found.content, _stamped(source.uri, found.stamp)


def source_of(uri: str, stamp: Stamp | None = None) -> Source:
    """Return a source with its current size and time; a missing file counts as empty.

    `stamp` is that of a remote source from a listing; without one, the loader requests it.
    """
    if is_remote(uri):
        return _stamped(uri, stamp)
    try:
        status = path_of_uri(uri).stat()
    except OSError:
        return Source(uri, 0, 0)
    return Source(uri, status.st_size, status.st_mtime_ns)


def _stamped(uri: str, stamp: Stamp | None) -> Source:
    if stamp is None:
        return Source(uri, 0, _NEVER_SEEN)
    return Source(uri, stamp.byte_count, _NEVER_SEEN if stamp.mark is None else stamp.mark)


def _recorded(source: Source) -> Source:
    """Return the source for the catalog: without a stamp, time 0, so that it never counts as unchanged."""
    return replace(source, modified_ns=0) if source.modified_ns == _NEVER_SEEN else source


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """Yield `function` of each item, in order, computed in `pool` for up to `ahead` items in advance."""
    waiting: deque[Future[_Result]] = deque()
    remaining = iter(items)
    try:
        waiting.extend(pool.submit(function, item) for item in islice(remaining, ahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()
