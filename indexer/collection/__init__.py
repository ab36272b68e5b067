"""The directory that holds a collection: shards, catalogue, generations, and the name of the live one."""
