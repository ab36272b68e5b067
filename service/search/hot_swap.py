"""The generation that is being served: follows the collection while requests go on."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.errors import WhatwhereError
from whatwhere.service.search.batching import InferenceBatcher
from whatwhere.service.search.description_cache import DescriptionCache
from whatwhere.service.search.searcher import Searcher, open_searcher
from whatwhere.service.settings import ServerSettings

_RETRY_AT_MOST_S = 60.0  # opening reads every new byte: not each second for one that stays broken
_PATIENCE_S = 10.0  # at the end a generation that is still being opened is not waited for any longer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Failure:
    """A generation that could not be opened (number None: not even its number could be read)."""

    number: int | None
    reason: str
    wait_s: float
    retry_at: float


class LiveSearcher:
    """The searcher of the live generation.

    A request takes `searcher` once and keeps it to its end. A newer generation is opened and warmed beside it, then
    takes its place; the old one goes with the last request that works with it. `report` is told whether the newest
    generation is the one being served, whenever that was looked at.
    """

    def __init__(self, searcher: Searcher, refresh_s: float = 0, report: Callable[[bool], None] | None = None) -> None:
        self.searcher = searcher
        self._refresh_s = refresh_s
        self._report = report or (lambda _: None)
        self._failure: _Failure | None = None
        self._refreshing = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop following, and close the network and the catalogue."""
        self.close()

    def close(self) -> None:
        """Stop following, and close the network and the catalogue, which all generations share."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE_S)
        self.searcher.batcher.close()
        self.searcher.collection.close()

    def follow(self) -> None:
        """Look for a newer generation every `refresh_s` seconds from now on; never where that is 0."""
        if self._refresh_s > 0:
            self._thread = threading.Thread(target=self._follow, name="generations", daemon=True)
            self._thread.start()

    def _follow(self) -> None:
        while not self._stopping.wait(self._refresh_s):
            self.refresh()

    def refresh(self) -> None:
        """Serve the newest generation; one that cannot be opened is logged, and the old one goes on serving."""
        with self._refreshing:  # by the thread that follows, and by whoever asks
            self._refresh()

    def _refresh(self) -> None:
        number = None
        try:
            number = self.searcher.collection.layout.current_number()
            if number != self.searcher.generation:
                if self._is_to_wait(number):
                    return
                self._swap()
        except Exception as error:  # whatever it is, requests go on
            self._note_failure(number, error)
            return
        self._failure = None
        self._report(True)

    def _swap(self) -> None:
        """Open the newest generation, warm it, and let it take the place of the one being served."""
        old = self.searcher.collection
        searcher = self.searcher.on(open_collection(old.layout.address, old))
        searcher.warm()
        self.searcher = searcher
        log.info("serving generation=%d images=%d", searcher.generation, searcher.collection.manifest.image_count)

    def _is_to_wait(self, number: int | None) -> bool:
        """Tell whether this generation has failed and is not yet to be tried again."""
        failure = self._failure
        return failure is not None and failure.number == number and time.monotonic() < failure.retry_at

    def _note_failure(self, number: int | None, error: Exception) -> None:
        """Report it; log it once for each reason; try again later, each time after twice as long."""
        reason = f"{type(error).__name__}: {error}"
        before = self._failure if self._failure is not None and self._failure.number == number else None
        wait_s = min(2 * before.wait_s if before is not None else self._refresh_s, _RETRY_AT_MOST_S)
        if before is None or before.reason != reason:
            log.error(
                "cannot serve generation=%s, generation %d goes on serving: %s",
                "unknown" if number is None else number,
                self.searcher.generation,
                reason,
                exc_info=None if isinstance(error, WhatwhereError | OSError) else error,
            )
        self._failure = _Failure(number, reason, wait_s, time.monotonic() + wait_s)
        self._report(False)


def open_live(
    settings: ServerSettings, batcher: InferenceBatcher, report: Callable[[bool], None] | None = None
) -> LiveSearcher:
    """Open the live generation, and load what runs on the network; raises the errors of opening them."""
    collection = open_collection(settings.collection)
    try:
        limits, cores = settings.limits.image, settings.cores
        searcher = open_searcher(collection, settings.device, limits, settings.weights, batcher, cores)
        searcher = replace(searcher, description_cache=DescriptionCache(settings.remembered_uploads))
        searcher.warm()
    except BaseException:
        collection.close()
        raise
    return LiveSearcher(searcher, settings.refresh_s, report)
