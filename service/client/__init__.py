"""The Python client of the gRPC server; imports neither torch nor faiss."""
