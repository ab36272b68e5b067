"""Look after a collection: info, verify, repair, rebuild, compact, remove, transfer."""
