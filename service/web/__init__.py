"""Serve the page, and the methods as JSON over HTTP; each request becomes a gRPC call in the same process."""
