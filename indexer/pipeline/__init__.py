"""Indexing runs: settings, loading, description in chunks, recording, publishing; training of whiteners."""
