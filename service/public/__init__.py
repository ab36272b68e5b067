"""Content-based image search."""
