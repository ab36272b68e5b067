"""Search and explanation on one generation, batched inference and hot swap."""
