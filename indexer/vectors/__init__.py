"""Indexes of unit vectors with ids, searched by inner product. Only this package imports faiss and pymilvus.

In files, an index is a few immutable segments and the ids that were removed since. So an addition to a large index
writes a small file, and generations share their common segments.
"""
