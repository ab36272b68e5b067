"""What is kept of uploads: the last ones asked about, and no more."""

import numpy as np

from whatwhere.indexer.features.description import Description, QuantizedFactors
from whatwhere.service.search.description_cache import DescriptionCache


def description() -> Description:
    """Give one that equals no other."""
    small = np.zeros((1, 1), np.uint8)
    return Description(QuantizedFactors(small, np.ones(1, np.float32), small, np.ones(1, np.float32), 1, 1))


def test_what_was_asked_about_last_is_kept() -> None:
    """Of two places, the one not looked at for longest goes first."""
    uploads, kept = DescriptionCache(2), {key: description() for key in "abc"}
    uploads.keep("a", kept["a"])
    uploads.keep("b", kept["b"])
    assert uploads.find("a") is kept["a"]

    uploads.keep("c", kept["c"])

    assert uploads.find("a") is kept["a"]
    assert uploads.find("b") is None
    assert uploads.find("c") is kept["c"]


def test_the_same_upload_again_takes_no_second_place() -> None:
    """Two threads may have described it at once."""
    uploads, other, later = DescriptionCache(2), description(), description()
    uploads.keep("a", other)
    uploads.keep("b", description())
    uploads.keep("b", later)

    assert uploads.find("a") is other
    assert uploads.find("b") is later


def test_without_room_nothing_is_kept() -> None:
    """As `--remembered-uploads 0` asks."""
    uploads = DescriptionCache()

    uploads.keep("a", description())

    assert uploads.find("a") is None
