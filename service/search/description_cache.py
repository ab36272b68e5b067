"""Cache descriptions of recent uploads: the next page, or another box on the same upload, needs no network."""

import threading
from collections import OrderedDict
from collections.abc import Hashable

from whatwhere.indexer.features.description import Description


class DescriptionCache:
    """A thread-safe LRU cache of at most `capacity` descriptions, about 40 KB each.

    A key contains the SHA-256 of the upload and the describer's fingerprint: a client without the image's bytes cannot
    find its description.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[Hashable, Description] = OrderedDict()
        self._changing = threading.Lock()

    def find(self, key: Hashable) -> Description | None:
        """Return the description of a key, None if absent, and mark it as the most recently used."""
        with self._changing:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def keep(self, key: Hashable, description: Description) -> None:
        """Add a description, and evict the least recently used one if the cache is full."""
        with self._changing:
            self._kept[key] = description
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)
