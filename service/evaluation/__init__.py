"""Data sets, protocols and metrics: how well a collection answers, in numbers that compare with published ones."""
