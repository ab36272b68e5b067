"""Indexing runs: settings, loading, chunks, recording, publishing; training of whiteners."""
