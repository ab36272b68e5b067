"""Read object stores and HTTP through fsspec, with retries, timeouts, rate and size limits."""

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
from whatwhere.indexer.sources.errors import as_os_error, is_transient, retry_after_s
from whatwhere.indexer.sources.uris import is_web, name_of, scheme_of
from whatwhere.indexer.storage.schemes import opening

_CONNECTIONS = 100
_PIECE_BYTES = 256 * 1024

_Result = TypeVar("_Result")


class Stamp(NamedTuple):
    """A version of the content at a URI: its size, and a hash of its ETag or modification time if known."""

    byte_count: int
    mark: int | None  # the hash, 63 bits


@dataclass(frozen=True)
class Content:
    """The bytes at a URI, and their stamp if the server gives one."""

    content: bytes
    stamp: Stamp | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """Timeouts of one try, and retries of transient errors with random exponential backoff."""

    tries: int = 5
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0  # without a byte
    total_timeout_s: float = 300.0  # of one try
    first_backoff_s: float = 1.0  # upper bound; doubled after each try
    max_backoff_s: float = 60.0  # no retry if Retry-After is longer


BRIEF = RetryPolicy(
    tries=2, connect_timeout_s=3, read_timeout_s=5, total_timeout_s=10, first_backoff_s=0.2, max_backoff_s=1
)


class RateLimit:
    """Limits the requests per second over all threads, evenly spaced; None is no limit."""

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
        """Block until this thread may send its request."""
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
    """A thread-safe reader of remote URIs; threads share connections and the rate limit.

    fsspec's libraries find credentials and endpoints (AWS_..., FSSPEC_S3_..., ~/.netrc).
    Raises FileNotFoundError if nothing is at the URI (404), PermissionError if access is denied, OSError for other
    errors after all retries, and InvalidRequest if a library is missing.
    """

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    rate: RateLimit = field(default_factory=RateLimit)
    sleep: Callable[[float], None] = time.sleep
    _filesystems: dict[str, Any] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def require(self, uri: str) -> None:
        """Raise InvalidRequest if the URI's scheme is unknown or its library is not installed."""
        self._filesystem(uri)

    def read(self, uri: str, limits: ImageLimits, stamp: Stamp | None = None) -> Content:
        """Read the bytes at a URI; a known `stamp`, from a listing, saves a request.

        Raises ImageTooManyBytes if they exceed the limit, and UnreadableImage if an HTML page or a folder is there.
        """
        name = name_of(uri)
        if is_web(uri):
            return self._try(uri, lambda: self._web_content(uri, name, limits))
        stamp = stamp or self.stamp(uri)
        if stamp is None:
            raise UnreadableImage(f"{name}: not a file")
        check_byte_count(name, stamp.byte_count, limits)
        if stamp.byte_count == 0:
            return Content(b"", stamp)  # S3 rejects an empty range
        content = self._try(uri, lambda: self._call(uri, "cat_file", start=0, end=limits.max_bytes + 1))
        check_byte_count(name, len(content), limits)
        return Content(content, stamp)

    def stamp(self, uri: str) -> Stamp | None:
        """Return the stamp of the content at a URI without reading it, None if the server gives none."""
        if is_web(uri):
            return self._web_stamp(uri)
        return _stamp_of(self._try(uri, lambda: self._call(uri, "info", **self._uncached(uri))))

    def is_folder(self, uri: str) -> bool:
        """Tell whether a URI is a folder; raise FileNotFoundError if nothing is there."""
        found = self._try(uri, lambda: self._call(uri, "info", **self._uncached(uri)))
        return bool(found.get("type") == "directory")

    def is_gone(self, uri: str) -> bool:
        """Tell whether the file at a URI no longer exists; an unreachable file is not gone."""
        try:
            self.stamp(uri)
        except FileNotFoundError:
            return True
        except (OSError, WhatwhereError):
            return False
        return False

    def files(self, folder: str) -> Iterator[tuple[str, Stamp]]:
        """Yield the URIs of all files below a folder (its URI ends in "/"), sorted, with their stamps.

        Raises FileNotFoundError if nothing is there.
        """
        listed = self._s3_files(folder) if scheme_of(folder) == "s3" else self._found_files(folder)
        nothing = True
        for uri, entry in listed:
            nothing = False
            stamp = _stamp_of(entry)
            if stamp is not None and not uri.endswith("/"):  # S3 consoles create such objects as folder markers
                yield uri, stamp
        if nothing:
            raise FileNotFoundError(2, "not found", folder)

    def copy(self, uri: str, file: IO[bytes], max_bytes: int) -> None:
        """Write the bytes at a URI to a file.

        Raises ImageTooManyBytes if an HTTP body exceeds `max_bytes`.
        """
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
        """Send a request, with retries of transient errors; raise OSError."""
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential  # noqa: PLC0415

        backoff = wait_random_exponential(self.policy.first_backoff_s, self.policy.max_backoff_s)

        def wait_s(state: Any) -> float:
            asked = retry_after_s(state.outcome.exception())
            return backoff(state) if asked is None else asked

        retrying = Retrying(
            stop=stop_after_attempt(self.policy.tries),
            wait=wait_s,
            retry=retry_if_exception(self._should_retry),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            answer: _Result = retrying(self._rate_limited, request)
        except WhatwhereError:
            raise
        except Exception as error:  # each library has its own exception tree
            raise as_os_error(error, uri, retrying.statistics.get("attempt_number", 1)) from error
        return answer

    def _rate_limited(self, request: Callable[[], _Result]) -> _Result:
        self.rate.wait()
        return request()

    def _should_retry(self, error: BaseException) -> bool:
        return is_transient(error) and (retry_after_s(error) or 0) <= self.policy.max_backoff_s

    def _filesystem(self, uri: str) -> Any:
        scheme = scheme_of(uri)
        with self._lock:
            if scheme not in self._filesystems:
                self._filesystems[scheme] = _filesystem(scheme, self.policy)
            return self._filesystems[scheme]

    def _call(self, uri: str, method: str, *arguments: Any, **more: Any) -> Any:
        filesystem = self._filesystem(uri)
        if filesystem.async_impl and method in ("cat_file", "info"):  # listing and copying may take longer
            more["timeout"] = self.policy.total_timeout_s
        return getattr(filesystem, method)(filesystem._strip_protocol(uri), *arguments, **more)

    def _uncached(self, uri: str) -> dict[str, bool]:
        """Return the options that bypass the listing cache of s3fs."""
        return {"refresh": True} if scheme_of(uri) == "s3" else {}

    # --- listing ------------------------------------------------------------------------------------------------

    def _s3_files(self, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the objects of an S3 listing page by page, so that memory stays bounded for millions of objects."""
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
            raise UnreadableImage(f"{name}: the server returned an HTML page, not an image: open the URL in a browser")
        return Content(content, _stamp_of({"size": len(content), **_validators_of(headers)}))

    def _web(self, uri: str, name: str, limits: ImageLimits, into: IO[bytes]) -> Mapping[str, str]:
        """Stream a response body into a file and return the headers."""
        from fsspec.asyn import sync  # noqa: PLC0415 - needed for remote files only

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
        """Send one HEAD request without retries: if it fails, the content is read, with retries."""
        from fsspec.asyn import sync  # noqa: PLC0415 - needed for remote files only

        filesystem = self._filesystem(uri)

        async def head() -> Mapping[str, str]:
            session = await filesystem.set_session()
            url, asked = filesystem.encode_url(uri), {"Accept-Encoding": "identity"}
            async with session.head(url, headers=asked, allow_redirects=True) as response:
                response.raise_for_status()
                headers: Mapping[str, str] = response.headers
                return headers

        try:
            headers = self._rate_limited(lambda: sync(filesystem.loop, head))
        except Exception as error:
            known = as_os_error(error, uri, tries=1)
            if isinstance(known, FileNotFoundError):
                raise known from error
            return None
        size = headers.get("Content-Length", "")
        return _stamp_of({"size": int(size), **_validators_of(headers)}) if size.isdigit() else None


def _filesystem(scheme: str, policy: RetryPolicy) -> Any:
    """Create fsspec's filesystem for a scheme, without its own retries: they would bypass the rate limit."""
    import fsspec  # noqa: PLC0415 - needed for remote files only

    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "s3":
        options["config_kwargs"] = {
            "connect_timeout": policy.connect_timeout_s,
            "read_timeout": policy.read_timeout_s,
            "max_pool_connections": _CONNECTIONS,
            "retries": {"total_max_attempts": 1},
        }
    with opening(scheme, f"{scheme}://", "paths"):
        if scheme in ("http", "https"):
            from aiohttp import ClientTimeout  # noqa: PLC0415 - as fsspec

            timeout = ClientTimeout(
                policy.total_timeout_s, sock_connect=policy.connect_timeout_s, sock_read=policy.read_timeout_s
            )
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
        filesystem = fsspec.filesystem(scheme, **options)
    if scheme == "s3":
        filesystem.retries = 1
    return filesystem


def _validators_of(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name in ("ETag", "Last-Modified") if (value := headers.get(name))}


def _stamp_of(entry: Mapping[str, Any]) -> Stamp | None:
    """Return the stamp of a file from a listing entry or HTTP headers, None for a folder."""
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
