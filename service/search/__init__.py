"""Query to hits, boxes and explanations on one generation; batching on the network; hot swap."""
