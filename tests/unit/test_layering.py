"""The rooms of the house import only what they may: the table is the design, this holds it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# room → the rooms of ours that it may import; a package is one room
ROOMS: dict[str, set[str]] = {
    "indexer/errors": set(),
    "indexer/boxes": {"indexer/errors"},
    "indexer/regions": {"indexer/boxes"},
    "indexer/files": set(),
    "indexer/images": {"indexer/errors"},
    "indexer/backbones": {"indexer/errors", "indexer/files"},
    "indexer/factorize": set(),
    "indexer/descriptors": set(),
    "indexer/whitening": {"indexer/errors", "indexer/files"},
    "indexer/describe": {
        "indexer/boxes",
        "indexer/regions",
        "indexer/backbones",
        "indexer/factorize",
        "indexer/descriptors",
        "indexer/whitening",
    },
    "indexer/methods": {
        "indexer/errors",
        "indexer/regions",
        "indexer/descriptors",
        "indexer/whitening",
        "indexer/describe",
    },
    "indexer/vectors": {"indexer/errors", "indexer/files"},
    "indexer/facts": {"indexer/catalog", "indexer/filters", "indexer/vectors"},
    "indexer/filters": {"indexer/errors"},
    "indexer/catalog": {"indexer/errors", "indexer/files", "indexer/filters"},
    "indexer/objects": {"indexer/errors"},
    "indexer/collection": {
        "indexer/errors",
        "indexer/facts",
        "indexer/objects",
        "indexer/files",
        "indexer/vectors",
        "indexer/catalog",
        "indexer/whitening",
        "indexer/factorize",
        "indexer/describe",
        "indexer/methods",
    },
    "indexer/exif": set(),
    "indexer/metadata": {"indexer/errors", "indexer/files", "indexer/filters"},
    "indexer/sources": {"indexer/errors", "indexer/files", "indexer/images", "indexer/metadata"},
    "indexer/scan": {"indexer/errors", "indexer/files", "indexer/images", "indexer/metadata", "indexer/sources"},
    "indexer/reading": {
        "indexer/errors",
        "indexer/exif",
        "indexer/files",
        "indexer/images",
        "indexer/metadata",
        "indexer/sources",
        "indexer/catalog",
    },
    "indexer/describing": {
        "indexer/catalog",
        "indexer/describe",
        "indexer/images",
        "indexer/metadata",
        "indexer/reading",
        "indexer/sources",
    },
    "indexer/pipeline": {
        "indexer/describing",
        "indexer/errors",
        "indexer/files",
        "indexer/images",
        "indexer/metadata",
        "indexer/scan",
        "indexer/sources",
        "indexer/reading",
        "indexer/vectors",
        "indexer/backbones",
        "indexer/whitening",
        "indexer/describe",
        "indexer/methods",
        "indexer/catalog",
        "indexer/collection",
    },
    "indexer/train": {
        "indexer/errors",
        "indexer/images",
        "indexer/backbones",
        "indexer/whitening",
        "indexer/describe",
        "indexer/methods",
        "indexer/pipeline",
        "indexer/reading",
        "indexer/scan",
        "indexer/sources",
    },
    "indexer/removal": {
        "indexer/errors",
        "indexer/catalog",
        "indexer/collection",
        "indexer/filters",
        "indexer/pipeline",
    },
    "indexer/inspection": {"indexer/catalog", "indexer/collection"},
    "indexer/verify": {
        "indexer/errors",
        "indexer/files",
        "indexer/methods",
        "indexer/vectors",
        "indexer/catalog",
        "indexer/collection",
    },
    "indexer/copying": {
        "indexer/errors",
        "indexer/files",
        "indexer/catalog",
        "indexer/collection",
        "indexer/reading",
        "indexer/verify",
    },
    "indexer/upkeep": {
        "indexer/errors",
        "indexer/methods",
        "indexer/catalog",
        "indexer/collection",
        "indexer/pipeline",
        "indexer/verify",
    },
    "indexer/visualize": {"indexer/errors", "indexer/backbones"},
    "service/rpc": set(),
    "service/settings": {"indexer/filters", "indexer/images", "service/tls"},
    "service/results": {"indexer/boxes"},
    "service/tls": {"indexer/errors", "indexer/files"},
    "service/tokens": {"indexer/errors", "indexer/files"},
    "service/localize": {"indexer/boxes", "indexer/regions", "indexer/descriptors", "indexer/factorize"},
    "service/ticket": {"indexer/errors"},
    "service/threads": {"indexer/vectors"},
    "service/network": {"indexer/errors", "indexer/boxes", "indexer/regions", "indexer/describe", "service/ticket"},
    "service/admission": {"indexer/errors", "service/ticket"},
    "service/status": {"indexer/errors"},
    "service/metrics": {"indexer/errors", "service/ticket"},
    "service/tracing": {"indexer/errors", "service/ticket"},
    "service/logs": set(),
    "service/health": {"service/live", "service/network"},
    "service/searcher": {
        "indexer/errors",
        "indexer/boxes",
        "indexer/images",
        "indexer/backbones",
        "indexer/catalog",
        "indexer/collection",
        "indexer/describe",
        "indexer/facts",
        "indexer/filters",
        "indexer/methods",
        "indexer/regions",
        "indexer/sources",
        "indexer/vectors",
        "service/localize",
        "service/network",
        "service/results",
        "service/ticket",
    },
    "service/showing": {
        "indexer/catalog",
        "indexer/filters",
        "indexer/images",
        "service/concepts",
        "service/explaining",
        "service/heatmaps",
        "service/results",
        "service/searcher",
        "service/ticket",
    },
    "service/concepts": {
        "indexer/errors",
        "indexer/boxes",
        "indexer/catalog",
        "indexer/collection",
        "indexer/describe",
        "indexer/factorize",
        "indexer/methods",
        "indexer/whitening",
        "service/localize",
    },
    "service/visualizing": {
        "indexer/errors",
        "indexer/boxes",
        "indexer/collection",
        "indexer/describe",
        "indexer/files",
        "indexer/images",
        "indexer/reading",
        "indexer/visualize",
        "service/concepts",
        "service/figures",
        "service/heatmaps",
        "service/pictures",
        "service/results",
        "service/searcher",
    },
    "service/live": {
        "indexer/errors",
        "indexer/collection",
        "service/network",
        "service/searcher",
        "service/settings",
    },
    "service/convert": {
        "indexer/errors",
        "indexer/boxes",
        "indexer/filters",
        "indexer/images",
        "indexer/regions",
        "service/results",
        "service/searcher",
        "service/settings",
        "service/showing",
        "service/rpc",
    },
    "service/servicer": {
        "service/admission",
        "service/convert",
        "service/live",
        "service/rpc",
        "service/searcher",
        "service/settings",
        "service/showing",
        "service/ticket",
    },
    "service/gateway": {"indexer/errors"},
    "service/interceptors": {
        "indexer/errors",
        "service/admission",
        "service/gateway",
        "service/metrics",
        "service/settings",
        "service/status",
        "service/ticket",
        "service/tokens",
        "service/tracing",
    },
    "service/web": {
        "indexer/errors",
        "service/admission",
        "service/gateway",
        "service/interceptors",
        "service/rpc",
        "service/settings",
        "service/status",
        "service/tls",
    },
    "service/server": {
        "indexer/errors",
        "indexer/backbones",
        "service/admission",
        "service/health",
        "service/interceptors",
        "service/live",
        "service/metrics",
        "service/network",
        "service/rpc",
        "service/searcher",
        "service/servicer",
        "service/settings",
        "service/threads",
        "service/tls",
        "service/tokens",
        "service/tracing",
        "service/web",
    },
    "service/failures": {"indexer/errors"},
    "service/answers": {"indexer/boxes", "service/results", "service/rpc"},
    "service/addresses": {"indexer/errors"},
    "service/channels": {"indexer/errors", "service/addresses"},
    "service/client": {
        "indexer/errors",
        "indexer/boxes",
        "service/addresses",
        "service/answers",
        "service/channels",
        "service/failures",
        "service/results",
        "service/rpc",
    },
    "service/explaining": {"indexer/boxes", "indexer/descriptors", "indexer/factorize", "service/localize"},
    "service/heatmaps": set(),
    "service/figures": {"service/explaining", "service/heatmaps", "service/pictures"},
    "service/illustrating": {
        "indexer/errors",
        "indexer/files",
        "indexer/images",
        "indexer/backbones",
        "indexer/factorize",
        "indexer/describe",
        "indexer/collection",
        "indexer/pipeline",
        "indexer/reading",
        "service/explaining",
        "service/figures",
        "service/pictures",
        "service/results",
        "service/searcher",
    },
    "service/pictures": {"indexer/errors", "indexer/boxes", "indexer/images", "indexer/sources", "service/results"},
    "service/progress": {"indexer/copying", "indexer/pipeline"},
    "service/evaluation": {
        "indexer/errors",
        "indexer/boxes",
        "indexer/files",
        "indexer/images",
        "indexer/backbones",
        "indexer/describe",
        "indexer/descriptors",
        "indexer/methods",
        "indexer/regions",
        "indexer/whitening",
        "indexer/train",
        "indexer/vectors",
        "indexer/factorize",
        "indexer/collection",
        "indexer/pipeline",
        "service/localize",
        "indexer/reading",
        "indexer/scan",
    },
    "service/asking": {
        "indexer/errors",
        "indexer/boxes",
        "indexer/images",
        "service/client",
        "service/pictures",
        "service/results",
        "service/server",
        "service/settings",
    },
    "service/cli": {
        "indexer/errors",
        "indexer/files",
        "indexer/filters",
        "indexer/backbones",
        "indexer/catalog",
        "indexer/collection",
        "indexer/copying",
        "indexer/images",
        "indexer/inspection",
        "indexer/pipeline",
        "indexer/removal",
        "indexer/train",
        "indexer/upkeep",
        "indexer/verify",
        "service/asking",
        "service/client",
        "service/evaluation",
        "service/explaining",
        "service/figures",
        "service/illustrating",
        "service/logs",
        "service/progress",
        "service/results",
        "service/server",
        "service/settings",
        "service/pictures",
        "service/tokens",
        "service/tls",
        "service/visualizing",
    },
    "service/demo": set(),
    "migrations": {"indexer/errors", "indexer/catalog"},
}
# library → its only home
HOMES = {
    "fsspec": {"indexer/objects", "indexer/sources"},
    "aiohttp": {"indexer/sources"},
    "tenacity": {"indexer/sources"},
    "pyarrow": {"indexer/sources"},
    "faiss": {"indexer/vectors"},
    "pymilvus": {"indexer/vectors"},
    "torchvision": {"indexer/backbones"},
    "sqlalchemy": {"indexer/catalog", "migrations"},
    "alembic": {"indexer/catalog", "migrations"},
    "lark": {"indexer/filters"},
    "grpc": {
        "service/channels",
        "service/client",
        "service/failures",
        "service/health",
        "service/interceptors",
        "service/server",
        "service/servicer",
        "service/status",
        "service/tls",
        "service/web",
    },
    "starlette": {"service/web"},
    "uvicorn": {"service/web"},
    "h11": {"service/web"},
    "prometheus_client": {"service/metrics"},
    "structlog": {"service/logs"},
    "opentelemetry": {"service/tracing"},
}


def sources() -> list[Path]:
    """Return our files: not the generated ones, and not the two packages' own empty ones."""
    found = [path for package in ("indexer", "service", "migrations") for path in (ROOT / package).rglob("*.py")]
    empty = {ROOT / "indexer" / "__init__.py", ROOT / "service" / "__init__.py"}
    return [path for path in found if path not in empty and path.parent.name != "rpc"]


def room_of(module: str) -> str:
    package, _, rest = module.partition(".")
    return package if package == "migrations" or not rest else f"{package}/{rest.split('.')[0]}"


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            nested = node.module in ("indexer", "service", "service.rpc")
            yield from (f"{node.module}.{alias.name}" if nested else node.module or "" for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    """No file reaches past its room's row of the table, or takes a library from another's home."""
    room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))

    used = set(imports(path))
    ours = {room_of(name) for name in used if name.split(".")[0] in ("indexer", "service", "migrations")} - {room}

    assert ours <= ROOMS[room]
    for library, homes in HOMES.items():
        assert room in homes or not any(name.split(".")[0] == library for name in used), f"{library} in {room}"


def test_the_table_has_no_empty_rooms() -> None:
    """Every row of the table stands for code that exists."""
    for room in ROOMS:
        assert (ROOT / room).is_dir() or (ROOT / room).with_suffix(".py").is_file(), room


def test_the_indexer_never_imports_the_service() -> None:
    """The contract between the halves is the collection on disk, in one direction."""
    assert not any(
        "service" in allowed for room, rooms in ROOMS.items() if room.startswith("indexer") for allowed in rooms
    )
