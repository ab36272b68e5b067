"""Generate a corpus of good and malformed image files, each with the outcome that indexing must have.

The pixels are generated, or cut from scikit-image's photographs. The same seed gives the same files. Files are small:
good pictures are about 64 pixels wide, bombs have some kilobytes. `python -m tests.malformed FOLDER --seed S` writes a
corpus for inspection.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.malformed import damaged, hostile, kinds
from tests.malformed.entries import Entry, Expected

__all__ = ["Entry", "Expected", "corpus", "write"]

_PARTS = (
    damaged.good,
    damaged.truncated,
    damaged.flipped,
    damaged.lying,
    damaged.disguised,
    hostile.bombs,
    hostile.odd_exif,
    hostile.odd_names,
    hostile.special_files,
    kinds.odd_pngs,
    kinds.odd_jpegs,
    kinds.odd_tiffs,
    kinds.no_images,
)


def corpus(seed: int) -> list[Entry]:
    """Return the entries of the corpus with this seed; their names differ."""
    random = np.random.default_rng(seed)
    entries = [entry for part in _PARTS for entry in part(random)]
    assert len({entry.name for entry in entries}) == len(entries)
    return entries


def write(entries: Sequence[Entry], folder: Path) -> None:
    """Write the files, in the order of the entries."""
    for entry in entries:
        path = folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        entry.make(path)
