"""Photographs that installed packages carry, a collection of them, and a server of it: real ones, made once."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage.data
import sklearn.datasets

from indexer.pipeline import IndexSettings, index_paths
from service.client import Client
from service.server import create_server
from service.settings import ServerSettings

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
DATA = Path(os.environ.get("WHATWHERE_DATA", SHARED / "data"))
SCIKIT_IMAGE = Path(skimage.data.__file__).parent
SCIKIT_LEARN = Path(sklearn.datasets.__file__).parent / "images"
# The left view of the motorbike is the query: it is not indexed.
QUERY_PHOTOGRAPH = SCIKIT_IMAGE / "motorcycle_left.png"
MOTORBIKE = (0.05, 0.15, 0.95, 0.98)
INDEXED_PHOTOGRAPHS = (
    *(SCIKIT_IMAGE / f"{name}.png" for name in ("astronaut", "chelsea", "coffee", "brick", "motorcycle_right")),
    SCIKIT_IMAGE / "rocket.jpg",
    SCIKIT_LEARN / "china.jpg",
    SCIKIT_LEARN / "flower.jpg",
)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of eight photographs, one of them in a folder of its own."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "nested").mkdir()
    for path in INDEXED_PHOTOGRAPHS:
        shutil.copy(path, folder / ("nested" if path.stem == "coffee" else "") / path.name)
    return folder


@pytest.fixture(scope="session")
def collection(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a collection of the photographs with every descriptor that has a ready-made whitener of two kinds."""
    root = tmp_path_factory.mktemp("collection") / "photographs.ww"
    index_paths([photographs], root, IndexSettings(descriptors=("what", "what-and-where", "r-mac")))
    return root


@pytest.fixture(scope="session")
def server(collection: Path) -> Iterator[str]:
    """Give the address of a server of the collection."""
    serving, port = create_server(ServerSettings(collection, listen="127.0.0.1:0"))
    serving.start()
    yield f"127.0.0.1:{port}"
    serving.stop(grace=None).wait()


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    """Give a client of the server."""
    with Client(server) as connected:
        yield connected


@pytest.fixture(scope="session")
def golden() -> Path:
    """Give the folder of golden values, or skip."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: golden values are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def data() -> Path:
    """Give the folder of evaluation photographs, or skip."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is absent: evaluation photographs are not part of the repository")
    return DATA
