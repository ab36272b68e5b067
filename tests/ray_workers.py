"""Workers that tests can hold and kill.

Each of their processes imports this: nothing here but what they need.
"""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from whatwhere.indexer.catalog.records import Source
from whatwhere.indexer.pipeline.ray.work import Arrived
from whatwhere.indexer.pipeline.ray.worker import ChunkWorker


class Held(ChunkWorker):
    """A worker that leaves its process's number in the folder HELD and waits there, with its second chunk or later."""

    def _described(self, number: int, sources: Sequence[Source]) -> Arrived:
        folder = Path(self._work.collection).with_suffix(".held")
        if number >= 2 and folder.is_dir():
            (folder / f"{os.getpid()}").touch()
            while folder.is_dir():
                time.sleep(0.05)
        return super()._described(number, sources)


class Dying(ChunkWorker):
    """A worker that dies of one picture."""

    def _described(self, number: int, sources: Sequence[Source]) -> Arrived:
        if any("deadly" in source.uri for source in sources):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._described(number, sources)
