"""Configure logging: one line per event, as key=value or JSON."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from whatwhere.service.observability.background import BackgroundHandler
from whatwhere.service.observability.log_format import LogFormat

_STDERR = 2
_QUIET_S = 60.0
# asyncio logs 512 of these in a second, with a traceback each, while no file descriptor is free.
_EXHAUSTED = "socket.accept() out of system resource"


@contextmanager
def logging_to_stderr(format: LogFormat) -> Iterator[None]:
    """Write all logs of the process to standard error, those of whatwhere from INFO on.

    The `extra` of a log call becomes fields of the line; line breaks in values are escaped. Logging never waits for
    who reads standard error, see `BackgroundHandler`.
    """
    renderer: structlog.typing.Processor
    if format is LogFormat.JSON:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "logger", "event"])
    handler = BackgroundHandler(_STDERR)
    handler.addFilter(_Once())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.ExtraAdder(),
                structlog.processors.format_exc_info,
            ],
        )
    )
    root = logging.getLogger()
    before, root.handlers = root.handlers, [handler]
    logging.getLogger("whatwhere").setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = before
        handler.close()


class _Once(logging.Filter):
    """Pass one line a minute that says that no file descriptor is free."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the record."""
        if not record.msg.startswith(_EXHAUSTED):
            return True
        now = time.monotonic()
        if self._passed is not None and now - self._passed < _QUIET_S:
            return False
        self._passed = now
        return True
