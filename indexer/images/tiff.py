"""Open TIFF pictures."""

from whatwhere.indexer.images.pillow_formats import opener, recognizer

is_tiff = recognizer("TIFF")
open_tiff = opener("TIFF")
