"""What commands import, each in a process of its own: torch takes seconds and half a gigabyte, and few need it."""

import importlib
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_first_release import WRITTEN
from whatwhere.indexer.backbones.names import DEVICES, PRECISION_NAMES
from whatwhere.indexer.features.names import DESCRIPTORS, PRESETS
from whatwhere.indexer.maintenance.rebuild import rebuild
from whatwhere.service.cli.options import DescriptorName, Device, Precision, Preset
from whatwhere.service.client.client import Client
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

NUMERIC = {"torch", "sklearn", "scipy", "pandas", "numba"}
# Beyond these, help needs nothing but the command line itself.
LARGE = NUMERIC | {"numpy", "sqlalchemy", "alembic", "faiss", "grpc", "google.protobuf", "PIL", "lark", "structlog"}
PEAK_MIB = 150
# Prints at the end what was imported, and the peak of this process's own memory.
CHILD = """
import atexit, json, re, sys
from pathlib import Path

report = Path(sys.argv.pop(1))

@atexit.register
def write():
    peak_kib = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    report.write_text(json.dumps({"modules": sorted(sys.modules), "peak_mib": peak_kib / 1024}))

from whatwhere.service.cli import main
main()
"""
# The same for several commands, one after the other in one process; their exit codes are its last line.
SEVERAL = CHILD.replace(
    "\nmain()\n",
    """
codes = []
for sys.argv[1:] in json.loads(sys.argv[1]):
    try:
        main()
        codes.append(0)
    except SystemExit as end:
        codes.append(end.code or 0)
print(codes)
""",
)
# Rooms that never import torch, and the modules of others that the commands above them need.
ROOMS = (
    *("indexer.catalog", "indexer.metadata", "indexer.sources", "indexer.storage", "indexer.vectors"),
    *("service.cli", "service.client", "service.security", "service.rpc", "service.drawing"),
)
MODULES = (
    *("indexer.backbones.names", "indexer.backbones.registry", "indexer.backbones.listing"),
    *("indexer.backbones.weights", "indexer.pipeline.defaults", "service.search.defaults"),
    *("indexer.features.names", "indexer.features.description", "indexer.features.whitening", "indexer.images.decode"),
    *("indexer.collection.layout", "indexer.collection.recipe", "indexer.collection.manifest"),
    *("indexer.collection.reader", "indexer.collection.writer", "indexer.collection.publish"),
    *("indexer.maintenance.info", "indexer.maintenance.remove", "indexer.maintenance.verify"),
    *("indexer.maintenance.transfer", "indexer.pipeline.settings", "service.settings", "service.results"),
    "service.local.search",
)
WITH_TORCH = {"service.drawing.visualization"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a small collection of this version."""
    copied: Path = shutil.copytree(WRITTEN / "collection.ww", tmp_path_factory.mktemp("startup") / "c.ww")
    rebuild(copied)
    return copied


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[str]:
    """Give the address of a server of the collection."""
    serving, port = create_server(ServerSettings(root, listen="127.0.0.1:0"))
    serving.start()
    yield f"127.0.0.1:{port}"
    serving.stop(grace=None)


def command(report: Path, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", CHILD, str(report), *map(str, arguments)]


def run(tmp_path: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run a command to its end, and return what it imported and its peak memory."""
    report = tmp_path / "report.json"
    done = subprocess.run(command(report, *arguments), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def imported(report: dict[str, Any], names: set[str]) -> list[str]:
    return sorted(names & set(report["modules"]))


@pytest.mark.parametrize(
    "arguments",
    [
        *[(), ("index",), ("info",), ("images",), ("backbones",), ("remove",), ("copy",), ("verify",), ("rebuild",)],
        *[("compact",), ("whiten",), ("evaluate",), ("serve",), ("search",), ("explain",), ("compare",)],
        *[("visualize",), ("health",), ("refresh",), ("demo",), ("token",), ("token", "create")],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_large(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Of the command, and of each sub-command."""
    report = run(tmp_path, *arguments, "--help")

    assert imported(report, LARGE) == []
    assert report["peak_mib"] < PEAK_MIB / 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "-c", "{root}"),
        ("info", "-c", "{root}", "--json"),
        ("images", "-c", "{root}"),
        ("images", "-c", "{root}", "--filter", "width_px > 10"),
        ("backbones",),
        ("verify", "-c", "{root}"),
        ("remove", "-c", "{copy}", "2"),
        ("copy", "{root}", "{copy}.2"),
        ("token", "create", "web", "--file", "{folder}/tokens.json"),
        ("health", "--server", "{server}"),
        ("refresh", "--server", "{server}"),
        ("search", "images/2", "--server", "{server}", "--picture", "{folder}/answer.png"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_only_looks_needs_no_numeric_library(
    arguments: tuple[str, ...], root: Path, server: str, tmp_path: Path
) -> None:
    """The work itself is done, not only begun, and takes little memory."""
    copy = tmp_path / "copy.ww"
    shutil.copytree(root, copy)

    report = run(tmp_path, *(text.format(root=root, copy=copy, folder=tmp_path, server=server) for text in arguments))

    needless = NUMERIC if arguments[0] == "copy" else NUMERIC | {"alembic"}  # which makes the tables of the copy
    needless = needless if "--filter" in arguments or arguments[0] == "copy" else needless | {"lark"}
    assert imported(report, needless) == []
    assert report["peak_mib"] < PEAK_MIB


def test_a_collection_is_searched_without_scikit_learn_and_grpc(root: Path, tmp_path: Path) -> None:
    """By the server's functions, without a server, a client or a socket; a stored image needs no network, too."""
    asked = [
        ["search", "images/2", "--localize", "2", "-c", str(root)],
        ["explain", "images/2", "-c", str(root)],
        ["compare", "images/2", "images/3", "-c", str(root)],
    ]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, str(report), json.dumps(asked)], check=False, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[0, 0, 0]", done.stderr

    assert (
        imported(json.loads(report.read_text()), {"sklearn", "pandas", "grpc", "openvino", "starlette", "uvicorn"})
        == []
    )


def test_a_server_needs_no_scikit_learn(root: Path, tmp_path: Path) -> None:
    """Whatever it is asked."""
    report = tmp_path / "report.json"
    started = command(report, "serve", "-c", root, "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0")
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        with Client(process.stdout.readline().split()[-1]) as client:
            client.search("images/2", SearchOptions(localize_count=3))
            client.explain("images/2", similar_count=2, heatmap_size_px=64)
            client.compare("images/2", ["images/3"])
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)

    assert imported(json.loads(report.read_text()), {"sklearn", "pandas"}) == []


def test_the_report_sees_what_is_imported(root: Path, tmp_path: Path) -> None:
    """A deep verification derives vectors, for which it needs torch."""
    report = run(tmp_path, "verify", "-c", root, "--deep")

    assert imported(report, {"torch"}) == ["torch"]


def modules_of(room: str) -> Sequence[str]:
    """Return the names of a room's modules, without importing them."""
    package = importlib.import_module(f"whatwhere.{room}")
    return [f"{room}.{each.name}" for each in pkgutil.iter_modules(package.__path__)]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_torch(room: str) -> None:
    """All its modules together."""
    assert_imports_no_torch([name for name in modules_of(room) if name not in WITH_TORCH])


def test_the_modules_that_commands_need_import_no_torch() -> None:
    """Of rooms of which others do."""
    assert_imports_no_torch(MODULES)


def assert_imports_no_torch(names: Sequence[str]) -> None:
    assert names
    code = "".join(f"import whatwhere.{name}\n" for name in names if not name.endswith("__main__"))
    code += f"import sys; print(sorted({NUMERIC} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_choices_of_the_command_line_are_those_that_there_are() -> None:
    """Descriptors, presets, devices and number formats stand in the indexer once, and as choices here."""
    assert [*DescriptorName] == [*DESCRIPTORS]
    assert [*Preset] == [*PRESETS]
    assert [*Device] == [*DEVICES]
    assert [*Precision] == [*PRECISION_NAMES]


def test_the_demonstration_says_what_to_install(tmp_path: Path) -> None:
    """Without scikit-image; the folder is left alone."""
    code = "import sys; sys.modules['skimage'] = None\nfrom whatwhere.service.cli import main\nmain()"

    done = subprocess.run(
        [sys.executable, "-c", code, "demo"], check=False, capture_output=True, text=True, cwd=tmp_path
    )

    assert done.returncode == 1
    assert "pip install 'whatwhere[demo]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "demo").exists()
