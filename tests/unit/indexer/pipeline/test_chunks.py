"""Events of describing: batches and chunks as values, in order; images that fail need no network."""

from typing import cast

import pytest

from whatwhere.indexer.catalog.records import Source
from whatwhere.indexer.errors import UnreadableImage
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.pipeline.chunks import Batch, Chunk, ChunkSizes, describe_sources
from whatwhere.indexer.pipeline.loading import Loaded

NO_NETWORK = cast("Describer", None)  # nothing is decoded, so nothing is described


def source(name: str) -> Source:
    """Return a source."""
    return Source(f"file:///{name}", 1, 1)


def load(item: Source) -> Loaded:
    """Fail for every source; capital letters are unchanged, and z does not exist."""
    if item.uri[-1].isupper():
        return Loaded(item, unchanged=True)
    return Loaded(item, error=UnreadableImage("no picture"), gone=item.uri.endswith("z"))


def events(names: str, sizes: ChunkSizes) -> list[tuple[str, object, object] | str]:
    """Return the events of describing these sources: of a batch its sources, unchanged and missing ones."""
    found: list[tuple[str, object, object] | str] = []
    for event in describe_sources(map(source, names), load, NO_NETWORK, sizes):
        uris = "".join(outcome.source.uri[-1] for outcome in event.outcomes)
        if isinstance(event, Batch):
            found.append((uris, event.unchanged, "".join(uri[-1] for uri in event.gone)))
        else:
            assert isinstance(event, Chunk)
            found.append(uris)
    return found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("", []),
        ("AB", [("", 2, "")]),
        ("abcd", [("ab", 0, ""), ("cd", 0, ""), "abcd"]),
        ("abcde", [("ab", 0, ""), ("cd", 0, ""), "abcd", ("e", 0, ""), "e"]),
        ("aBcDE", [("ac", 1, ""), ("", 2, ""), "ac"]),
        ("azbcZd", [("az", 0, "z"), ("bc", 0, ""), "azbc", ("d", 1, ""), "d"]),
    ],
)
def test_a_chunk_follows_the_batch_that_completes_it(names: str, expected: list[object]) -> None:
    """Every source is in one batch and one chunk, or counted as unchanged."""
    assert events(names, ChunkSizes(batch_size=2, workers=2, chunk_sources=3)) == expected
