"""Find and load the whiteners of a collection."""

from collections.abc import Iterator
from pathlib import Path

from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import IndexEntry, Manifest
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.errors import CollectionCorrupt, WhitenerUnavailable
from whatwhere.indexer.features import whitening
from whatwhere.indexer.features.whitening import Whitener


def find_whiteners(layout: Layout, recipe: Recipe, folder: Path | None = None) -> dict[str, tuple[Whitener, ...]]:
    """Return the whiteners of each descriptor's parts: from `folder`, else the collection's own, else published ones.

    Raises WhitenerUnavailable if one is missing, CollectionCorrupt if one of the collection's own is damaged.
    """
    live = Manifest.live(layout) if folder is None else None
    entries = () if live is None else live.indexes.values()
    own = {whitener.key: whitener for entry in entries for whitener in stored_whiteners(layout, entry)}
    return _by_descriptor(recipe, own, folder)


def find_sound_whiteners(layout: Layout, recipe: Recipe, folder: Path | None = None) -> dict[str, tuple[Whitener, ...]]:
    """Return whiteners as `find_whiteners` does, although the live generation or its whiteners may be damaged.

    Sound whiteners of the collection are used first, then those of `folder` or published ones.
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
    """Return the whiteners of a descriptor's vectors. Raises CollectionCorrupt if one is missing or damaged."""
    return tuple(stored_whitener(layout, fingerprint) for fingerprint in entry.whiteners)


def stored_whitener(layout: Layout, expected: str) -> Whitener:
    """Return the whitener with this fingerprint. Raises CollectionCorrupt if it is missing or damaged."""
    remedy = "run `whatwhere verify --repair`"
    try:
        whitener = whitening.load(layout.fetch(layout.whitener(expected)))
    except WhitenerUnavailable as error:
        raise CollectionCorrupt(f"whitener {expected[:12]}… is missing or damaged: {remedy}") from error
    if whitener.fingerprint != expected:
        raise CollectionCorrupt(f"whitener {expected[:12]}… does not match its fingerprint: {remedy}")
    return whitener
