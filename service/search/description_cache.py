"""What was described a moment ago: the next page, and a box drawn on the same upload, need no network again."""

import threading
from collections import OrderedDict
from collections.abc import Hashable

from whatwhere.indexer.features.describe import Description


class DescriptionCache:
    """Keeps the descriptions of the uploads asked about last, `capacity` of them, each some 40 KB. Thread-safe.

    Keys name the content by its SHA-256 and what described it: who does not have the picture's bytes finds nothing.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[Hashable, Description] = OrderedDict()
        self._changing = threading.Lock()

    def find(self, key: Hashable) -> Description | None:
        """Return what is kept under a key, and keep it longest of all from now on."""
        with self._changing:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def keep(self, key: Hashable, description: Description) -> None:
        """Keep a description, in the place of the one that was not asked for longest."""
        with self._changing:
            self._kept[key] = description
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)
