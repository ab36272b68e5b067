"""Photographs that installed packages carry, a collection of them, and a server of it: real ones, made once."""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage.data
import sklearn.datasets
import torch
from hypothesis import HealthCheck, settings

from tests.commands import SHARED as SHARED_FOLDER
from tests.loading import ACTIVATIONS, loading_once
from tests.postgres import PostgresServer
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.identity import Identity
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service.client.client import Client
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
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

# Temporary files are made in memory where there is room: making a database takes a fifth of the time there.
MEMORY, ROOM = Path("/dev/shm"), 8 << 30

# An example's time is no property: beside other processes any may take long.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def rows(root: Path) -> list[tuple[int, tuple[str, ...], str | None, str]]:
    """Return what a collection's catalogue says of every image."""
    with Catalog.open(Layout(root).catalog) as catalog:
        return [(image.id, image.uris, image.content_hash, image.state) for image in catalog.images()]


def written(root: Path) -> dict[str, bytes]:
    """Return the bytes of everything in a collection but the catalogue that a reader opens."""
    folders = (Layout(root).shards, Layout(root).segments, Layout(root).generations, Layout(root).whiteners)
    suffixes = {".safetensors", ".faiss", ".npy"}
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in suffixes]
    # Not the seal of the manifest, which holds the time of publication.
    number = Layout(root).current.read_bytes().split()[0]
    return {str(path.relative_to(root)): less_id(Layout(root), path) for path in files} | {"CURRENT": number}


def less_id(layout: Layout, path: Path) -> bytes:
    """Return the bytes of a file, less the id of its collection, which each has of its own, as in headers of shards."""
    return layout.fetch(path).read_bytes().replace(Identity.of(layout).id.encode(), b"")


def corel(data: Path) -> tuple[list[Path], list[Path]]:
    """Return pictures of ten classes, class by class: five each that are searched, and one that asks."""
    folder = data / "corel1k"
    searched = [folder / f"images/{90 * kind + number}.jpg" for kind in range(10) for number in range(5)]
    return searched, [folder / f"queries/{10 * kind}.jpg" for kind in range(10)]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: where others compete for the cores, several are slower than one (measured: 5 times)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def networks_are_loaded_once() -> Iterator[None]:
    """Share loaded networks among all tests but those of loading itself."""
    with loading_once():
        yield


def pytest_configure(config: pytest.Config) -> None:
    """Say what marks there are, and make the folder that all processes of a run share."""
    if SHARED_FOLDER not in os.environ:  # the first process; those that it starts have its variables
        if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
            os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)
        folder = tempfile.TemporaryDirectory(prefix="whatwhere-tests-")
        (Path(folder.name) / "activations").mkdir()
        os.environ |= {SHARED_FOLDER: folder.name, ACTIVATIONS: f"{folder.name}/activations"}
        config.add_cleanup(folder.cleanup)
    config.addinivalue_line("markers", "takes(seconds): about how long a module takes; what takes long is begun first")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest, so that no worker ends minutes after the others."""
    items.sort(key=_seconds, reverse=True)


def pytest_collection_finish() -> None:
    """Look for garbage less often: what is imported stays, and to search it took a fifteenth of the time."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _seconds(item: pytest.Item) -> float:
    mark = item.get_closest_marker("takes")
    return float(mark.args[0]) if mark is not None else 0.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of the catalogue on both databases, but for those that ask for the path of the SQLite file."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if module.startswith(("test_catalog", "test_filtering")) and "address" in metafunc.fixturenames:
        kinds = ["sqlite"] if "path" in metafunc.fixturenames else ["sqlite", "postgresql"]
        metafunc.parametrize("address", kinds, indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give a PostgreSQL server, or skip where there is none (but where all tests must run)."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Give the address of a catalogue that is not there yet, or has nothing in it but its tables."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield tmp_path / "catalog.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.database()
    yield server.url(name)
    server.drop(name)


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
    """Give a collection of the photographs with the default descriptors and a baseline."""
    root = tmp_path_factory.mktemp("collection") / "photographs.ww"
    index_paths([photographs], root, IndexSettings(descriptors=("what", "what-and-where", "fused", "r-mac")))
    return root


@pytest.fixture(scope="session")
def server(collection: Path) -> Iterator[str]:
    """Give the address of a server of the collection."""
    serving, port = create_server(ServerSettings(collection, listen="127.0.0.1:0"))
    serving.start()
    yield f"127.0.0.1:{port}"
    serving.stop(grace=None)


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
