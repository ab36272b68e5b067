"""Read and decode files ahead of the network, in threads."""

import hashlib
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from indexer.catalog import Catalog, Source
from indexer.errors import UnreadableImage, WhatwhereError
from indexer.exif import exif
from indexer.files import path_of_uri, printable
from indexer.images import DecodedImage, ImageLimits, check_byte_count, decode_image
from indexer.metadata import Metadata

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Loaded:
    """A source after reading: decoded, or known by content, or failed. `exif` is None where nobody asked for it."""

    source: Source
    content_hash: str | None = None
    byte_count: int = 0
    decoded: DecodedImage | None = None
    error: WhatwhereError | None = None
    exif: Metadata | None = None


@dataclass(frozen=True)
class Loader:
    """Reads, hashes and decodes one source; content that the catalogue knows is not decoded."""

    catalog: Catalog
    limits: ImageLimits = field(default_factory=ImageLimits)
    retry_failed: bool = False
    exif: bool = False
    gps: bool = False

    def __call__(self, source: Source) -> Loaded:
        """Return what there is; errors are part of that."""
        path = path_of_uri(source.uri)
        content_hash = None
        try:
            content = read_file(path, self.limits)
            content_hash = hashlib.sha256(content).hexdigest()
            found = exif(content, gps=self.gps) if self.exif or self.gps else None
            if self.catalog.has_content(content_hash, retry_failed=self.retry_failed):
                return Loaded(source, content_hash, exif=found)
            decoded = decode_image(content, printable(path), limits=self.limits)
        except WhatwhereError as error:
            # without the frames, which would hold bytes and pixels for as long as the error waits for its turn
            return Loaded(source, content_hash, source.byte_count, error=error.with_traceback(None))
        except OSError as error:
            reason = UnreadableImage(f"{printable(path)}: cannot be read: {error.strerror}")
            return Loaded(source, None, source.byte_count, error=reason)
        return Loaded(source, content_hash, len(content), decoded, exif=found)


def source_of(path: Path) -> Source:
    """Return the source as the file system describes it now; a file that vanished counts as empty."""
    try:
        status = path.stat()
    except OSError:
        return Source(path.as_uri(), 0, 0)
    return Source(path.as_uri(), status.st_size, status.st_mtime_ns)


def read_file(path: Path, limits: ImageLimits) -> bytes:
    """Return a file's bytes; what is not a regular file (a pipe would block for ever) or too large is not opened."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage(f"{printable(path)}: not a regular file")
    check_byte_count(printable(path), status.st_size, limits)
    if status.st_size == 0:
        return b""  # also what /proc calls empty, where reading may wait for ever
    with path.open("rb") as file:
        content = file.read(limits.max_bytes + 1)  # a file may grow while it is read
    check_byte_count(printable(path), len(content), limits)
    return content


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
