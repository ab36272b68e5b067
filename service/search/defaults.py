"""Defaults and limits of visualizations. Plain values: importing this needs no torch."""

DEFAULT_PATCHES = 8  # stored images that show the factor
MAX_PATCHES = 40
