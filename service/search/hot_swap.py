"""Serve the newest generation of a collection, and swap generations while requests run."""

import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from whatwhere.indexer.collection.reader import Standing, open_collection
from whatwhere.indexer.collection.stores import warn_of_network
from whatwhere.indexer.errors import WhatwhereError
from whatwhere.service.search.batching import InferenceBatcher
from whatwhere.service.search.description_cache import DescriptionCache
from whatwhere.service.search.searcher import Searcher, open_searcher
from whatwhere.service.settings import ServerSettings

_RETRY_AT_MOST_S = 60.0  # opening reads every new byte: a broken generation is not retried every second
_LOOKS_EVERY_S = 2.0  # without a refresh interval
_PATIENCE_S = 10.0  # close() waits no longer than this for a generation that is being opened

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Failure:
    """A generation that could not be opened. `standing` is None if the current number could not be read."""

    standing: Standing | None
    reason: str
    wait_s: float
    retry_at: float


class LiveSearcher:
    """The searcher of the live generation.

    A request reads `searcher` once and uses it until it ends. A newer generation is opened and warmed up beside the
    current one and then replaces it; the old one is released with its last request. A collection that takes the place
    of the served one is opened in the same way, with its own catalog. `report` is called after each attempt with
    whether the newest generation is being served. If `refresh_s` is 0, only that is reported.
    """

    def __init__(self, searcher: Searcher, refresh_s: float = 0, report: Callable[[bool], None] | None = None) -> None:
        self.searcher = searcher
        self._refresh_s = refresh_s
        self._report = report or (lambda _: None)
        self._failure: _Failure | None = None
        self._is_newest = True
        self._refreshing = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the live searcher."""
        self.close()

    def close(self) -> None:
        """Stop following, and close the batcher and the catalog, which all generations share."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE_S)
        self.searcher.batcher.close()
        self.searcher.collection.close()

    def follow(self) -> None:
        """Start to check for a newer generation every `refresh_s` seconds."""
        self._thread = threading.Thread(target=self._follow, name="generations", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._stopping.wait(self._refresh_s or _LOOKS_EVERY_S):
            if self._refresh_s:
                self.refresh()
            else:
                self.look()

    def look(self) -> None:
        """Report whether the newest generation is being served, without serving it; log it when that changes."""
        with self._refreshing:
            try:
                newest = Standing.at(self.searcher.collection.address) == self.searcher.collection.standing
            except Exception as error:  # requests continue in any case
                self._note_failure(None, error)
                return
            if not newest and self._is_newest:
                log.warning(
                    "still serving generation %d, although it is not the newest: run `whatwhere refresh`",
                    self.searcher.generation,
                )
            self._say(newest)

    def _say(self, newest: bool) -> None:
        self._is_newest = newest
        self._report(newest)

    def refresh(self) -> None:
        """Serve the newest generation. If it cannot be opened, log the reason and keep serving the current one."""
        with self._refreshing:  # called by the following thread and by AdminService
            self._refresh()

    def _refresh(self) -> None:
        standing = None
        try:
            standing = Standing.at(self.searcher.collection.address)
            if standing != self.searcher.collection.standing:
                if self._is_to_wait(standing):
                    return
                self._swap()
        except Exception as error:  # requests continue in any case
            self._note_failure(standing, error)
            return
        self._failure = None
        self._say(True)

    def _swap(self) -> None:
        """Open the newest generation, warm it up, and replace the current one."""
        old = self.searcher.collection
        opened = open_collection(old.address, old)
        try:
            searcher = self.searcher.on(opened)
            searcher.warm()
        except BaseException:
            if opened.catalog is not old.catalog:
                opened.close()
            raise
        if opened.catalog is not old.catalog:
            weakref.finalize(old, old.catalog.close)  # with its last request
        self.searcher = searcher
        is_same = opened.identity == old.identity
        log.info(
            "serving generation=%d images=%d%s",
            searcher.generation,
            opened.manifest.image_count,
            "" if is_same else f" of another collection, id={opened.identity.id}, before: id={old.identity.id}",
        )

    def _is_to_wait(self, standing: Standing) -> bool:
        """Return whether this generation has failed and its next retry is not due yet."""
        failure = self._failure
        return failure is not None and failure.standing == standing and time.monotonic() < failure.retry_at

    def _note_failure(self, standing: Standing | None, error: Exception) -> None:
        """Report a failure, log each reason once, and double the delay before the next retry."""
        reason = f"{type(error).__name__}: {error}"
        number = None if standing is None or standing.current is None else standing.current.number
        before = self._failure if self._failure is not None and self._failure.standing == standing else None
        wait_s = min(2 * before.wait_s if before is not None else self._refresh_s, _RETRY_AT_MOST_S)
        if before is None or before.reason != reason:
            log.error(
                "cannot serve generation=%s, still serving generation %d: %s",
                "unknown" if number is None else number,
                self.searcher.generation,
                reason,
                exc_info=None if isinstance(error, WhatwhereError | OSError) else error,
            )
        self._failure = _Failure(standing, reason, wait_s, time.monotonic() + wait_s)
        self._say(False)


def open_live(
    settings: ServerSettings, batcher: InferenceBatcher, report: Callable[[bool], None] | None = None
) -> LiveSearcher:
    """Open the newest generation and load its network.

    Raises the errors of `open_collection` and `open_searcher`.
    """
    collection = open_collection(settings.collection)
    warn_of_network(collection.layout)
    try:
        limits, cores = settings.limits.image, settings.cores
        searcher = open_searcher(collection, settings.device, limits, settings.weights, batcher, cores)
        searcher = replace(searcher, description_cache=DescriptionCache(settings.remembered_uploads))
        searcher.warm()
    except BaseException:
        collection.close()
        raise
    return LiveSearcher(searcher, settings.refresh_s, report)
