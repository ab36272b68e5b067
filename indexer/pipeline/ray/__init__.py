"""Indexing on several machines: workers of Ray Data describe chunks and write shards, one process records them.

Ray is an optional dependency and imported when it is used; a local run needs only the settings of this package.
"""
