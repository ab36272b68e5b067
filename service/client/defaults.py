"""Defaults of the client. Plain values: importing this needs no gRPC."""

DEFAULT_TIMEOUT_S = 60.0
