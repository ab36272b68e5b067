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
from whatwhere.service import cli
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


def run_all(tmp_path: Path, commands: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Run commands to their ends in one process, and return what they imported together, and its peak memory."""
    report = tmp_path / "report.json"
    asked = [sys.executable, "-c", SEVERAL, str(report), json.dumps(commands)]
    done = subprocess.run(asked, check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"{[0] * len(commands)}", done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def imported(report: dict[str, Any], names: set[str]) -> list[str]:
    return sorted(names & set(report["modules"]))


def test_help_imports_nothing_large(tmp_path: Path) -> None:
    """Of no command and no sub-command."""
    names = [each.callback.__name__ for each in cli.app.registered_commands if each.callback is not None]
    assert len(names) > 15

    report = run_all(
        tmp_path, [[*words, "--help"] for words in ((), ("token",), ("token", "create"), *zip(names, strict=True))]
    )

    assert imported(report, LARGE) == []
    assert report["peak_mib"] < PEAK_MIB / 2


LOCAL = (
    ("info", "-c", "{root}"),
    ("info", "-c", "{root}", "--json"),
    ("images", "-c", "{root}"),
    ("backbones",),
    ("verify", "-c", "{root}"),
    ("remove", "-c", "{copy}", "2"),
    ("token", "create", "web", "--file", "{folder}/tokens.json"),
)
FILTERED = (("images", "-c", "{root}", "--filter", "width_px > 10"),)
REMOTE = (
    ("health", "--server", "{server}"),
    ("refresh", "--server", "{server}"),
    ("search", "images/2", "--server", "{server}", "--picture", "{folder}/answer.png"),
)


@pytest.mark.parametrize(
    ("commands", "needed"),
    [(LOCAL, set()), (FILTERED, {"lark"}), (REMOTE, set()), ([("copy", "{root}", "{copy}.2")], {"alembic"})],
    ids=["local", "filtered", "remote", "copy"],
)
def test_what_only_looks_needs_no_numeric_library(
    commands: Sequence[Sequence[str]], needed: set[str], root: Path, server: str, tmp_path: Path
) -> None:
    """The work itself is done, and takes little memory; a copy needs Alembic, which makes its tables."""
    copy = tmp_path / "copy.ww"
    shutil.copytree(root, copy)
    places = {"root": root, "copy": copy, "folder": tmp_path, "server": server}

    report = run_all(tmp_path, [[text.format(**places) for text in arguments] for arguments in commands])

    assert imported(report, (NUMERIC | {"alembic", "lark"}) - needed) == []
    assert report["peak_mib"] < PEAK_MIB


def test_a_collection_is_searched_without_scikit_learn_and_grpc(root: Path, tmp_path: Path) -> None:
    """By the server's functions, without a server, a client or a socket; a stored image needs no network, too."""
    asked = [
        ["search", "images/2", "--localize", "2", "-c", str(root)],
        ["explain", "images/2", "-c", str(root)],
        ["compare", "images/2", "images/3", "-c", str(root)],
    ]

    report = run_all(tmp_path, asked)

    assert imported(report, {"sklearn", "pandas", "grpc", "openvino", "starlette", "uvicorn"}) == []


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
    report = run_all(tmp_path, [["verify", "-c", str(root), "--deep"]])

    assert imported(report, {"torch"}) == ["torch"]


def modules_of(room: str) -> Sequence[str]:
    """Return the names of a room's modules, without importing them."""
    package = importlib.import_module(f"whatwhere.{room}")
    names = [f"{room}.{each.name}" for each in pkgutil.iter_modules(package.__path__)]
    return [name for name in names if not name.endswith("__main__")]


def test_rooms_and_modules_that_commands_need_import_no_torch() -> None:
    """All modules of the rooms, one after the other; the first room that does is named."""
    rooms = {room: [name for name in modules_of(room) if name not in WITH_TORCH] for room in ROOMS}
    assert all(rooms.values())
    code = f"import importlib, sys\nfor room, names in {rooms | {'other rooms': MODULES}}.items():\n"
    code += "    for name in names: importlib.import_module(f'whatwhere.{name}')\n"
    code += f"    found = sorted({NUMERIC} & set(sys.modules))\n"
    code += "    if found: sys.exit(f'{room} imports {found}')\n"

    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=os.environ)

    assert (done.returncode, done.stderr) == (0, "")


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
