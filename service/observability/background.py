"""Write log lines from a thread, so that a reader that stalls never stops the server."""

import logging
import os
import queue
import select
import threading
from contextlib import suppress

MOST_WAITING = 10_000  # lines, about 4 MB
_LAST_LINES_S = 1.0  # at the end, for a reader that is slow or gone

log = logging.getLogger(__name__)


class BackgroundHandler(logging.Handler):
    """Queue lines for a thread that writes them to a file descriptor.

    While nobody reads the other end of a pipe, writing blocks: the queue fills up, and further lines are dropped and
    counted. A line with their number follows when writing works again.
    """

    def __init__(self, descriptor: int, most_waiting: int = MOST_WAITING) -> None:
        super().__init__()
        self.dropped = 0
        self._descriptor = descriptor
        self._waiting: queue.Queue[str | None] = queue.Queue(most_waiting)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and queue it, or drop it if the queue is full."""
        try:
            self._waiting.put_nowait(self.format(record))  # here: its error's frames are not kept alive by the queue
        except queue.Full:
            self.dropped += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what is queued, for at most a second, and stop."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=_LAST_LINES_S)
            self._thread.join(_LAST_LINES_S)
        super().close()

    def _write(self) -> None:
        reported = 0
        while (line := self._waiting.get()) is not None:
            self._send(line)
            if (missing := self.dropped - reported) and not self._waiting.full():
                reported += missing
                self._send(self.format(_dropped(missing)))

    def _send(self, line: str) -> None:
        rest = memoryview(f"{line}\n".encode(errors="backslashreplace"))
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:  # the pipe was set so by another process that has it, too
                    select.select([], [self._descriptor], [])
        except OSError:  # nobody has the other end any more, or the disk is full
            self.dropped += 1


def dropped_lines() -> int:
    """Return the number of lines that this process's log has dropped."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, BackgroundHandler))


def _dropped(count: int) -> logging.LogRecord:
    return log.makeRecord(
        log.name, logging.WARNING, __file__, 0, "log lines dropped", (), None, extra={"dropped": count}
    )
