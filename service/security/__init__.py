"""TLS certificates and bearer tokens."""
