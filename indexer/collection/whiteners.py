"""Which whiteners a collection's vectors go through."""

from collections.abc import Iterator
from pathlib import Path

from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import IndexEntry, Manifest
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.errors import CollectionCorrupt, WhitenerUnavailable
from whatwhere.indexer.features import whitening
from whatwhere.indexer.features.whitening import Whitener


def find_whiteners(layout: Layout, recipe: Recipe, folder: Path | None = None) -> dict[str, tuple[Whitener, ...]]:
    """Return the whiteners of each descriptor's parts: those in `folder`, else the collection's own, else ready-made.

    Raises WhitenerUnavailable where there is none, CollectionCorrupt where one of the collection's own is damaged.
    """
    live = Manifest.live(layout) if folder is None else None
    entries = () if live is None else live.indexes.values()
    own = {whitener.key: whitener for entry in entries for whitener in stored_whiteners(layout, entry)}
    return _by_descriptor(recipe, own, folder)


def find_sound_whiteners(layout: Layout, recipe: Recipe, folder: Path | None = None) -> dict[str, tuple[Whitener, ...]]:
    """Return whiteners as `find_whiteners` does where the live generation, or one of its whiteners, is damaged.

    What is sound in the collection is taken, of `folder` or the ready-made ones what is lacking.
    """
    own = {whitener.key: whitener for whitener in _sound(layout)}
    return _by_descriptor(recipe, own, folder)


def _by_descriptor(
    recipe: Recipe, own: dict[whitening.WhitenerKey, Whitener], folder: Path | None
) -> dict[str, tuple[Whitener, ...]]:
    return {
        method.name: tuple(
            own.get(recipe.whitener_key(rows)) or whitening.find(recipe.whitener_key(rows), folder)
            for rows in method.whiteners
        )
        for method in recipe.methods
    }


def _sound(layout: Layout) -> Iterator[Whitener]:
    for path in (layout.fetch(layout.whiteners / name) for name in layout.names(layout.whiteners)):
        if whitening.holds(path, path.stem):
            yield whitening.load(path)


def stored_whiteners(layout: Layout, entry: IndexEntry) -> tuple[Whitener, ...]:
    """Return the whiteners that a descriptor's vectors went through; CollectionCorrupt when one is not here."""
    return tuple(stored_whitener(layout, fingerprint) for fingerprint in entry.whiteners)


def stored_whitener(layout: Layout, expected: str) -> Whitener:
    """Return the whitener of this fingerprint; CollectionCorrupt when it is not here, or not as it was written."""
    remedy = "run `whatwhere verify --repair`"
    try:
        whitener = whitening.load(layout.fetch(layout.whitener(expected)))
    except WhitenerUnavailable as error:
        raise CollectionCorrupt(f"whitener {expected[:12]}… is missing or damaged: {remedy}") from error
    if whitener.fingerprint != expected:
        raise CollectionCorrupt(f"whitener {expected[:12]}… holds other values than were written: {remedy}")
    return whitener
