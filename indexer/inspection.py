"""What a collection holds, for people and programs that look at it from outside."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexer.catalog import Catalog
from indexer.collection import Layout, Manifest, Recipe


def inspect_collection(root: Path) -> dict[str, Any]:
    """Return counts, recipe, live generation and bytes on disk; the errors of opening a collection."""
    layout = Layout(root)
    recipe = Recipe.load(layout)
    number = layout.current_number()
    manifest = None if number is None else Manifest.load(layout.generation(number))
    with Catalog.open(layout.catalog) as catalog:
        images = catalog.counts()
    return {
        "collection": str(root),
        "images": images,
        "generation": number,
        "searchable_images": manifest.image_count if manifest else 0,
        "published_at": manifest.created_at.isoformat() if manifest else None,
        "recipe": asdict(recipe),
        "indexes": {
            name: f"{entry.factory}, {entry.dimensions} dimensions, whitened by "
            + " and ".join(whitener[:12] for whitener in entry.whiteners)
            for name, entry in (manifest.indexes if manifest else {}).items()
        },
        "libraries": manifest.libraries if manifest else {},
        "bytes": {
            "catalog": _bytes(layout.root.glob("catalog.db*")),
            "shards": _bytes(layout.shards.iterdir()),
            "generations": _bytes(layout.generations.rglob("*")),
            "whiteners": _bytes(layout.whiteners.iterdir()),
        },
    }


def _bytes(paths: Any) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
