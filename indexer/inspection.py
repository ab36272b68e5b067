"""What a collection holds, for people and programs that look at it from outside."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexer.catalog import Catalog
from indexer.collection import Layout, Manifest, Recipe


def inspect_collection(root: Path) -> dict[str, Any]:
    """Return counts, recipe, live generation and bytes on disk; the errors of opening a collection."""
    layout = Layout(root)
    made_by = Recipe.load(layout)
    manifest = Manifest.live(layout)
    with Catalog.open(layout.catalog) as catalog:
        images = catalog.counts()
    return {
        "collection": str(root),
        "images": images,
        "generation": manifest.number if manifest else None,
        "searchable_images": manifest.image_count if manifest else 0,
        "published_at": manifest.created_at.isoformat() if manifest else None,
        "recipe": asdict(manifest.recipe if manifest else made_by),
        "indexes": {name: _described(entry) for name, entry in (manifest.indexes if manifest else {}).items()},
        "libraries": manifest.libraries if manifest else {},
        "bytes": {
            "catalog": _bytes(layout.root.glob("catalog.db*")),
            "shards": _bytes(layout.shards.iterdir()),
            "segments": _bytes(layout.segments.glob("*")),
            "generations": _bytes(layout.generations.rglob("*")),
            "whiteners": _bytes(layout.whiteners.iterdir()),
        },
    }


def _described(entry: Any) -> str:
    segments = ", ".join(f"{segment.vector_count:,} {segment.factory}" for segment in entry.segments)
    whiteners = " and ".join(whitener[:12] for whitener in entry.whiteners)
    return f"{segments or 'empty'}, {entry.dimensions} dimensions, whitened by {whiteners}"


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
