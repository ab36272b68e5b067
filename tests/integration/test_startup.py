"""What commands import, each in a process of its own: torch takes seconds and half a gigabyte, and few need it."""

import importlib
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
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
# Runs groups of commands, one after the other in one interpreter, and reports after each what is imported by then, its
# peak memory and their exit codes. A group whose name begins with + is run in a fork, and leaves nothing to the next.
SEVERAL = """
import json, os, re, sys
from pathlib import Path

folder, groups = Path(sys.argv[1]), json.loads(sys.argv[2])

def run(name, commands):
    codes = []
    for sys.argv[1:] in commands:
        try:
            main()
            codes.append(0)
        except SystemExit as end:
            codes.append(end.code or 0)
    peak_kib = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    report = {"modules": sorted(sys.modules), "peak_mib": peak_kib / 1024, "codes": codes}
    (folder / f"{name}.json").write_text(json.dumps(report))

from whatwhere.service.cli import main
for name, commands in groups.items():
    sys.stdout.flush()
    if not name.startswith("+"):
        run(name, commands)
    elif (child := os.fork()):
        assert os.waitpid(child, 0)[1] == 0
    else:
        run(name, commands)
        sys.stdout.flush()
        os._exit(0)
"""
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


def run_all(folder: Path, groups: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, dict[str, Any]]:
    """Run groups of commands to their ends in one process; return what is imported after each, and the peak memory."""
    asked = [sys.executable, "-c", SEVERAL, str(folder), json.dumps(groups)]
    done = subprocess.run(asked, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reports: dict[str, dict[str, Any]] = {name: json.loads((folder / f"{name}.json").read_text()) for name in groups}
    assert {name: report["codes"] for name, report in reports.items()} == {
        name: [0] * len(commands) for name, commands in groups.items()
    }, done.stderr
    return reports


def imported(report: dict[str, Any], names: set[str]) -> list[str]:
    return sorted(names & set(report["modules"]))


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
COPY = (("copy", "{root}", "{copy}.2"),)


def test_what_only_looks_needs_no_numeric_library(root: Path, server: str, tmp_path: Path) -> None:
    """Help needs nothing large; the work itself is done, and takes little memory; a copy needs Alembic's tables."""
    names = [each.callback.__name__ for each in cli.app.registered_commands if each.callback is not None]
    assert len(names) > 15
    helped = [[*words, "--help"] for words in ((), ("token",), ("token", "create"), *zip(names, strict=True))]
    copy = tmp_path / "copy.ww"
    shutil.copytree(root, copy)
    places = {"root": root, "copy": copy, "folder": tmp_path, "server": server}
    looking = {"local": LOCAL, "+filtered": FILTERED, "+remote": REMOTE, "+copy": COPY}

    reports = run_all(
        tmp_path,
        {"help": helped}
        | {
            name: [[text.format(**places) for text in arguments] for arguments in commands]
            for name, commands in looking.items()
        },
    )

    assert imported(reports["help"], LARGE) == []
    assert reports["help"]["peak_mib"] < PEAK_MIB / 2
    for name, needed in {
        "local": set[str](),
        "+filtered": {"lark"},
        "+remote": set[str](),
        "+copy": {"alembic"},
    }.items():
        assert (name, imported(reports[name], (NUMERIC | {"alembic", "lark"}) - needed)) == (name, [])
        assert reports[name]["peak_mib"] < PEAK_MIB, name


def test_what_searches_needs_no_scikit_learn(root: Path, tmp_path: Path) -> None:
    """By the server's functions, without a server, a client or a socket; a stored image needs no network, too.

    A deep verification derives vectors, for which it needs torch: the report sees it. A server that is asked everything
    is the third in the same interpreter, and ends well.
    """
    asked = [
        ["search", "images/2", "--localize", "2", "-c", str(root)],
        ["explain", "images/2", "-c", str(root)],
        ["compare", "images/2", "images/3", "-c", str(root)],
    ]
    groups = {
        "searched": asked,
        "verified": [["verify", "-c", str(root), "--deep"]],
        "served": [["serve", "-c", str(root), "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0"]],
    }
    command = [sys.executable, "-c", SEVERAL, str(tmp_path), json.dumps(groups)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        address = next(line for line in process.stdout if " 127.0.0.1:" in line).split()[-1]
        with Client(address) as client:
            client.search("images/2", SearchOptions(localize_count=3))
            client.explain("images/2", similar_count=2, heatmap_size_px=64)
            client.compare("images/2", ["images/3"])
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(timeout=60) == 0

    reports = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in groups}
    assert [report["codes"] for report in reports.values()] == [[0, 0, 0], [0], [0]]
    assert imported(reports["searched"], {"sklearn", "pandas", "grpc", "openvino", "starlette", "uvicorn"}) == []
    assert imported(reports["verified"], {"torch"}) == ["torch"]
    assert imported(reports["served"], {"sklearn", "pandas"}) == []
    assert imported(reports["served"], {"starlette"}) == ["starlette"]


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
