"""Maintenance of a collection: info, verify, repair, rebuild, compact, remove, transfer."""
