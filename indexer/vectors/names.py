"""Name the kinds of vector files that need no faiss to be known."""

AUTO = "auto"  # in the place of a faiss factory string: the one for the number of vectors, see `factories.factory_for`
EXACT = "Flat"
