"""The formats of a server's log. Plain values: importing this needs no logging library."""

from enum import StrEnum


class LogFormat(StrEnum):
    """A line of the log."""

    TEXT = "text"
    JSON = "json"
