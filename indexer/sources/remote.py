"""Bytes from elsewhere: object stores and the web, through fsspec, patiently and within limits."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any, NamedTuple, TypeVar

from whatwhere.indexer.errors import UnreadableImage, WhatwhereError
from whatwhere.indexer.images.decode import check_byte_count
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.sources.errors import asked_wait_s, may_pass, named
from whatwhere.indexer.sources.uris import is_web, name_of, scheme_of
from whatwhere.indexer.storage.schemes import opening

_CONNECTIONS = 100
_PIECE_BYTES = 256 * 1024

_Result = TypeVar("_Result")


class Stamp(NamedTuple):
    """What changes with the content at a URI: its bytes, and a mark of its ETag or time of change, where known."""

    byte_count: int
    mark: int | None  # 63 bits


@dataclass(frozen=True)
class Content:
    """The bytes at a URI, and their stamp where the server gives one."""

    content: bytes
    stamp: Stamp | None = None


@dataclass(frozen=True)
class Patience:
    """How long to wait for an answer, and how often to ask again for what may pass, with growing random waits."""

    tries: int = 5
    connect_s: float = 10.0
    silence_s: float = 30.0  # without a byte
    total_s: float = 300.0  # of one try
    first_wait_s: float = 1.0  # at most; twice that after each try
    longest_wait_s: float = 60.0  # a server that asks for a longer one is not asked again


BRIEF = Patience(tries=2, connect_s=3, silence_s=5, total_s=10, first_wait_s=0.2, longest_wait_s=1)


class RateLimit:
    """Lets at most so many requests a second begin, evenly spaced over all threads; None is no limit."""

    def __init__(
        self,
        per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_s = 0.0 if per_second is None else 1 / per_second
        self._clock, self._sleep = clock, sleep
        self._next = clock()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for this thread's turn."""
        if not self._interval_s:
            return
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._interval_s
        if turn > now:
            self._sleep(turn - now)


@dataclass(frozen=True)
class Remote:
    """Reads URIs of elsewhere. Safe to use from several threads, which share connections and the rate limit.

    Credentials and endpoints are found as fsspec's libraries do (AWS_..., FSSPEC_S3_..., ~/.netrc). Methods raise the
    errors of the system: FileNotFoundError where nothing is (404), PermissionError where access is refused, OSError
    for the rest after all tries; InvalidRequest where a library is missing.
    """

    patience: Patience = field(default_factory=Patience)
    rate: RateLimit = field(default_factory=RateLimit)
    sleep: Callable[[float], None] = time.sleep
    _filesystems: dict[str, Any] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def require(self, uri: str) -> None:
        """Raise InvalidRequest where URIs like this need a library that is not here, or are of no known kind."""
        self._filesystem(uri)

    def read(self, uri: str, limits: ImageLimits, stamp: Stamp | None = None) -> Content:
        """Return the bytes at a URI; `stamp` is what a listing or `stamp` told of it, which saves asking again.

        Reading stops at the limit: ImageTooManyBytes. UnreadableImage for a web page in a picture's place.
        """
        name = name_of(uri)
        if is_web(uri):
            return self._try(uri, lambda: self._web_content(uri, name, limits))
        stamp = stamp or self.stamp(uri)
        if stamp is None:
            raise UnreadableImage(f"{name}: not a file")
        check_byte_count(name, stamp.byte_count, limits)
        if stamp.byte_count == 0:
            return Content(b"", stamp)  # a range of nothing is an error to S3
        content = self._try(uri, lambda: self._call(uri, "cat_file", start=0, end=limits.max_bytes + 1))
        check_byte_count(name, len(content), limits)
        return Content(content, stamp)

    def stamp(self, uri: str) -> Stamp | None:
        """Return what tells whether the content at a URI changed, without reading it; None where nothing does."""
        if is_web(uri):
            return self._web_stamp(uri)
        return _stamp_of(self._try(uri, lambda: self._call(uri, "info", **self._anew(uri))))

    def is_folder(self, uri: str) -> bool:
        """Tell whether a URI is a folder; FileNotFoundError where there is nothing at all."""
        found = self._try(uri, lambda: self._call(uri, "info", **self._anew(uri)))
        return bool(found.get("type") == "directory")

    def is_gone(self, uri: str) -> bool:
        """Tell whether nothing is at a URI any more; what merely cannot be seen is not gone."""
        try:
            self.stamp(uri)
        except FileNotFoundError:
            return True
        except (OSError, WhatwhereError):
            return False
        return False

    def files(self, folder: str) -> Iterator[tuple[str, Stamp]]:
        """Yield the URIs of all files below a folder (its URI ends in "/"), sorted, with their stamps.

        FileNotFoundError where nothing is.
        """
        listed = self._s3_files(folder) if scheme_of(folder) == "s3" else self._found_files(folder)
        nothing = True
        for uri, entry in listed:
            nothing = False
            stamp = _stamp_of(entry)
            if stamp is not None and not uri.endswith("/"):  # consoles of S3 make such objects to show a folder
                yield uri, stamp
        if nothing:
            raise FileNotFoundError(2, "nothing is there", folder)

    def copy(self, uri: str, file: IO[bytes], max_bytes: int) -> None:
        """Write the bytes at a URI to a file; ImageTooManyBytes where they are more."""
        limits = ImageLimits(max_bytes=max_bytes)

        def once() -> None:
            file.seek(0)
            file.truncate()
            if is_web(uri):
                self._web(uri, name_of(uri), limits, file)
            else:
                self._call(uri, "get_file", file.name)

        self._try(uri, once)

    # --- requests -----------------------------------------------------------------------------------------------

    def _try(self, uri: str, request: Callable[[], _Result]) -> _Result:
        """Make a request, again where the error may pass; raises errors of the system."""
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential  # noqa: PLC0415

        backoff = wait_random_exponential(self.patience.first_wait_s, self.patience.longest_wait_s)

        def wait_s(state: Any) -> float:
            asked = asked_wait_s(state.outcome.exception())
            return backoff(state) if asked is None else asked

        retrying = Retrying(
            stop=stop_after_attempt(self.patience.tries),
            wait=wait_s,
            retry=retry_if_exception(self._is_worth_another_try),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            answer: _Result = retrying(self._in_turn, request)
        except WhatwhereError:
            raise
        except Exception as error:  # each library has its own tree
            raise named(error, uri, retrying.statistics.get("attempt_number", 1)) from error
        return answer

    def _in_turn(self, request: Callable[[], _Result]) -> _Result:
        self.rate.wait()
        return request()

    def _is_worth_another_try(self, error: BaseException) -> bool:
        return may_pass(error) and (asked_wait_s(error) or 0) <= self.patience.longest_wait_s

    def _filesystem(self, uri: str) -> Any:
        scheme = scheme_of(uri)
        with self._lock:
            if scheme not in self._filesystems:
                self._filesystems[scheme] = _filesystem(scheme, self.patience)
            return self._filesystems[scheme]

    def _call(self, uri: str, method: str, *arguments: Any, **more: Any) -> Any:
        filesystem = self._filesystem(uri)
        if filesystem.async_impl and method in ("cat_file", "info"):  # what is listed or copied may be long
            more["timeout"] = self.patience.total_s
        return getattr(filesystem, method)(filesystem._strip_protocol(uri), *arguments, **more)

    def _anew(self, uri: str) -> dict[str, bool]:
        """Return what keeps s3fs from answering from what it listed before."""
        return {"refresh": True} if scheme_of(uri) == "s3" else {}

    # --- listing ------------------------------------------------------------------------------------------------

    def _s3_files(self, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield what S3 lists, page by page: millions of objects are never in memory together."""
        start, _, name = folder.partition("://")
        bucket, _, prefix = name.partition("/")
        asked = {"Bucket": bucket, "Prefix": prefix}
        while True:
            page = self._try(folder, lambda: self._filesystem(folder).call_s3("list_objects_v2", **asked))
            for entry in page.get("Contents", ()):
                yield f"{start}://{bucket}/{entry['Key']}", {"size": entry["Size"], **entry}
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _found_files(self, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        root = str(self._filesystem(folder)._strip_protocol(folder)).rstrip("/")
        found = self._try(folder, lambda: self._call(folder, "find", detail=True))
        for path in sorted(found):
            yield folder.rstrip("/") + path[len(root) :], found[path]

    # --- the web ------------------------------------------------------------------------------------------------

    def _web_content(self, uri: str, name: str, limits: ImageLimits) -> Content:
        body = BytesIO()
        headers = self._web(uri, name, limits, body)
        content = body.getvalue()
        if headers.get("Content-Type", "").startswith("text/html") and content.lstrip()[:1] == b"<":
            raise UnreadableImage(f"{name}: a web page is in its place: look at it in a browser, or ask its owner")
        return Content(content, _stamp_of({"size": len(content), **_marks_of(headers)}))

    def _web(self, uri: str, name: str, limits: ImageLimits, into: IO[bytes]) -> Mapping[str, str]:
        """Write a body into a file as it arrives, and return the headers."""
        from fsspec.asyn import sync  # noqa: PLC0415 - local files do not pay for it

        filesystem = self._filesystem(uri)

        async def get() -> Mapping[str, str]:
            session = await filesystem.set_session()
            async with session.get(filesystem.encode_url(uri), headers={"Accept-Encoding": "identity"}) as response:
                response.raise_for_status()
                check_byte_count(name, response.content_length or 0, limits)
                count = 0
                async for piece in response.content.iter_chunked(_PIECE_BYTES):
                    count += len(piece)
                    check_byte_count(name, count, limits)
                    into.write(piece)
                headers: Mapping[str, str] = response.headers
                return headers

        headers: Mapping[str, str] = sync(filesystem.loop, get)
        return headers

    def _web_stamp(self, uri: str) -> Stamp | None:
        """Ask once: whoever does not answer is asked for the content, which is tried several times."""
        from fsspec.asyn import sync  # noqa: PLC0415 - local files do not pay for it

        filesystem = self._filesystem(uri)

        async def head() -> Mapping[str, str]:
            session = await filesystem.set_session()
            url, asked = filesystem.encode_url(uri), {"Accept-Encoding": "identity"}
            async with session.head(url, headers=asked, allow_redirects=True) as response:
                response.raise_for_status()
                headers: Mapping[str, str] = response.headers
                return headers

        try:
            headers = self._in_turn(lambda: sync(filesystem.loop, head))
        except Exception as error:
            known = named(error, uri, tries=1)
            if isinstance(known, FileNotFoundError):
                raise known from error
            return None
        size = headers.get("Content-Length", "")
        return _stamp_of({"size": int(size), **_marks_of(headers)}) if size.isdigit() else None


def _filesystem(scheme: str, patience: Patience) -> Any:
    """Make fsspec's filesystem of a scheme, whose own tries are left out: they would know no limit of requests."""
    import fsspec  # noqa: PLC0415 - local files do not pay for it

    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "s3":
        options["config_kwargs"] = {
            "connect_timeout": patience.connect_s,
            "read_timeout": patience.silence_s,
            "max_pool_connections": _CONNECTIONS,
            "retries": {"total_max_attempts": 1},
        }
    with opening(scheme, f"{scheme}://", "paths"):
        if scheme in ("http", "https"):
            from aiohttp import ClientTimeout  # noqa: PLC0415 - as fsspec

            timeout = ClientTimeout(patience.total_s, sock_connect=patience.connect_s, sock_read=patience.silence_s)
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
        filesystem = fsspec.filesystem(scheme, **options)
    if scheme == "s3":
        filesystem.retries = 1
    return filesystem


def _marks_of(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name in ("ETag", "Last-Modified") if (value := headers.get(name))}


def _stamp_of(entry: Mapping[str, Any]) -> Stamp | None:
    """Return the stamp of what a store or the web tells of a file; None of a folder."""
    names = (
        "ETag",
        "etag",
        "LastModified",
        "Last-Modified",
        "updated",
        "last_modified",
        "mtime",
        "modified",
        "created",
    )
    mark = next((str(entry[name]) for name in names if entry.get(name)), None)
    if entry.get("type") == "directory" or entry.get("size") is None:
        return None
    if mark is None:
        return Stamp(int(entry["size"]), None)
    plain = mark.removeprefix("W/").strip('"')
    return Stamp(int(entry["size"]), int.from_bytes(hashlib.sha256(plain.encode()).digest()[:8]) >> 1)
