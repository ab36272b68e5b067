"""Configure logging: one line per event, as key=value or JSON."""

import logging
import sys

import structlog

from whatwhere.service.observability.log_format import LogFormat


def configure_logging(format: LogFormat) -> None:
    """Write all logs of the process to standard error, those of whatwhere from INFO on.

    The `extra` of a log call becomes fields of the line; line breaks in values are escaped.
    """
    renderer: structlog.typing.Processor
    if format is LogFormat.JSON:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "logger", "event"])
    handler = logging.StreamHandler(sys.stderr)
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
    root.handlers = [handler]
    logging.getLogger("whatwhere").setLevel(logging.INFO)
