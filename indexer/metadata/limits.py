"""Limits on filters. Plain values: importing this needs no parser."""

MAX_LENGTH = 4096  # characters of a filter
