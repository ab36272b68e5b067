"""The directory of a collection: shards, catalog, generations, and the name of the live generation."""
