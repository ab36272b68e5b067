"""Defaults of drawings. Plain values: importing this needs no image library."""

OPACITY = 0.75  # of a heatmap where it is hottest
