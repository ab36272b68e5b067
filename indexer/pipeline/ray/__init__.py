"""Describing on several machines: Ray Data's workers describe chunks and write shards, one process records them.

Ray is an extra, imported where it is used: nothing of this package but its settings is needed to index here.
"""
