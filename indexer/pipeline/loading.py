"""Read and decode pictures ahead of the network, in threads."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol, TypeVar

from whatwhere.indexer.catalog.records import Source
from whatwhere.indexer.errors import UnreadableImage, WhatwhereError
from whatwhere.indexer.images.decode import DecodedImage, decode_image
from whatwhere.indexer.images.exif import exif
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.metadata.values import Metadata
from whatwhere.indexer.sources.local import read_file
from whatwhere.indexer.sources.read import read
from whatwhere.indexer.sources.remote import Remote, Stamp
from whatwhere.indexer.sources.uris import is_remote, name_of
from whatwhere.indexer.storage.files import path_of_uri

__all__ = ["Known", "Loaded", "Loader", "in_groups", "map_ahead", "read_file", "source_of"]

_NEVER_SEEN = -1  # the `modified_ns` of what nobody listed: it is asked for where it is read

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Known(Protocol):
    """What a catalogue is asked while pictures are read: see `Catalog`."""

    def has_content(self, content_hash: str, *, retry_failed: bool = False) -> bool:
        """Tell whether this content needs no describing."""

    def content_of(self, uri: str) -> str | None:
        """Return the hash of what was last read at a URI, None when nothing was."""

    def unchanged(self, sources: Sequence[Source], *, retry_failed: bool = False) -> set[str]:
        """Return the URIs of which nothing changed."""


@dataclass(frozen=True)
class Loaded:
    """A source after reading: decoded, or known by content, or failed. `exif` is None where nobody asked for it.

    `unchanged`: it was found out only now, of what nobody listed, that nothing needs to be read. `gone`: nothing is
    there.
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
    """Reads, hashes and decodes one source; content that the catalogue knows is not decoded."""

    catalog: Known
    limits: ImageLimits = field(default_factory=ImageLimits)
    retry_failed: bool = False
    exif: bool = False
    gps: bool = False
    checksum: bool = False  # read also what is unchanged
    remote: Remote = field(default_factory=Remote)

    def __call__(self, source: Source) -> Loaded:
        """Return what there is; errors are part of that."""
        content_hash = None
        try:
            if is_remote(source.uri):
                source = self._asked_for(source)
                if self._is_unchanged(source):
                    return Loaded(source, unchanged=True)
            content, source = self._read(source)
            content_hash = hashlib.sha256(content).hexdigest()
            found = exif(content, gps=self.gps) if self.exif or self.gps else None
            if self.catalog.has_content(content_hash, retry_failed=self.retry_failed):
                return Loaded(_recorded(source), content_hash, exif=found)
            decoded = decode_image(content, name_of(source.uri), limits=self.limits)
        except WhatwhereError as error:
            # without the frames, which would hold bytes and pixels for as long as the error waits for its turn
            return Loaded(_recorded(source), content_hash, source.byte_count, error=error.with_traceback(None))
        except OSError as error:
            reason = UnreadableImage(f"{name_of(source.uri)}: cannot be read: {error.strerror}")
            gone = isinstance(error, FileNotFoundError | NotADirectoryError)
            return Loaded(_recorded(source), None, source.byte_count, error=reason, gone=gone)
        return Loaded(_recorded(source), content_hash, len(content), decoded, exif=found)

    def _asked_for(self, source: Source) -> Source:
        """Ask for the stamp of what nobody listed, where it was read before: on the web the content tells it too."""
        if self.checksum or source.modified_ns != _NEVER_SEEN or self.catalog.content_of(source.uri) is None:
            return source
        return _stamped(source.uri, self.remote.stamp(source.uri))

    def _is_unchanged(self, source: Source) -> bool:
        """Tell whether the catalogue knows the source as it is; what was listed was looked up before."""
        return (
            not self.checksum
            and source.modified_ns != _NEVER_SEEN
            and source.uri in self.catalog.unchanged([source], retry_failed=self.retry_failed)
        )

    def _read(self, source: Source) -> tuple[bytes, Source]:
        stamp = None if source.modified_ns == _NEVER_SEEN else Stamp(source.byte_count, source.modified_ns)
        found = read(source.uri, self.limits, self.remote, stamp)
        if found.stamp is None:
            return found.content, source
        return found.content, _stamped(source.uri, found.stamp)


def source_of(uri: str, stamp: Stamp | None = None) -> Source:
    """Return the source as its place describes it now; a file that vanished counts as empty.

    Of what is elsewhere `stamp` is what a listing told; without one, the loader asks.
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
    """Return the source as the catalogue keeps it: what has no stamp is never taken for unchanged."""
    return replace(source, modified_ns=0) if source.modified_ns == _NEVER_SEEN else source


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """Yield `function` of each item in order, computed in `pool` at most `ahead` items in advance."""
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


def in_groups(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of `size` items, the last one shorter."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
