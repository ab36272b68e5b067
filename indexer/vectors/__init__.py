"""Vector indexes of unit vectors with ids, searched by inner product; the only home of faiss, and of pymilvus.

In files, an index is a few segments that never change, and the ids that have gone since they were written. So adding
to a large index writes a small file, and generations share what they have in common.
"""
