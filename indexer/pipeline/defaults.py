"""Defaults of indexing. Plain values: importing this needs neither the catalog nor torch."""

DEFAULT_BATCH_SIZE = 8  # images described together
