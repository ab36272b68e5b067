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
    cache, kept = DescriptionCache(2), {key: description() for key in "abc"}
    cache.keep("a", kept["a"])
    cache.keep("b", kept["b"])
    assert cache.find("a") is kept["a"]

    cache.keep("c", kept["c"])

    assert cache.find("a") is kept["a"]
    assert cache.find("b") is None
    assert cache.find("c") is kept["c"]


def test_the_same_upload_again_takes_no_second_place() -> None:
    """Two threads may have described it at once."""
    cache, other, later = DescriptionCache(2), description(), description()
    cache.keep("a", other)
    cache.keep("b", description())
    cache.keep("b", later)

    assert cache.find("a") is other
    assert cache.find("b") is later


def test_without_room_nothing_is_kept() -> None:
    """As `--remembered-uploads 0` asks."""
    cache = DescriptionCache()

    cache.keep("a", description())

    assert cache.find("a") is None
