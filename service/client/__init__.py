"""Provide the Python client of the gRPC server, without torch or faiss."""
