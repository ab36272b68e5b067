"""Image sources: local files, object stores, HTTP, and lists of images."""
