"""The wheel, installed into a clean environment, in a project that has packages of the same folder names."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import QUERY_PHOTOGRAPH, ROOT, SCIKIT_IMAGE
from tests.networks import BY_TORCH

NAMES = ("service", "indexer", "migrations")
FOREIGN = "raise RuntimeError('the project in this folder has a package of this name')\n"
# Runs the installed script of the command three times, in forks of one interpreter: it imports torch once. The third
# serves, and is asked by the client.
COMMANDS = """
import json
import os
import runpy
import signal
import sys
from pathlib import Path

import torch

from whatwhere import Box, Client, SearchOptions
from whatwhere.indexer.pipeline import run
from whatwhere.service import server

script, query, *pictures = sys.argv[1:]
root = ["--collection", "pictures.ww"]


def start(*arguments):
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.dup2(writing, 1)
        os.close(writing)
        os.close(reading)
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        os._exit(0)
    os.close(writing)
    return process, open(reading)


def end(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


process, _ = start("index", *pictures, *root)
assert end(process) == 0
process, printed = start("search", query, *root, "--json")
found = json.loads(printed.read())
assert end(process) == 0
process, printed = start("serve", *root, "--listen", "127.0.0.1:0")
try:
    with Client(printed.readline().split()[-1]) as client:
        result = client.search(Path(query), SearchOptions(Box(0.05, 0.15, 0.95, 0.98), page_size=1))
finally:
    os.kill(process, signal.SIGTERM)
assert end(process) == 0
print(json.dumps([found["hits"][0]["uri"], [hit.image.file_name for hit in result.hits]]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what it is made of, so that nothing is written into the checkout."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*NAMES, "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", made, source]
    subprocess.run(command, check=True)
    (built,) = made.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project with packages of its own that are called like our folders."""
    folder = tmp_path_factory.mktemp("project")
    for name in NAMES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(FOREIGN)
    (folder / "migrations" / "env.py").write_text(FOREIGN)
    return folder


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment that has its dependencies, and nothing of this checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(command, check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # A path alone: the .pth files there, one of which is this checkout's editable install, are not followed.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(command: list[str | Path], project: Path) -> str:
    """Run a command in the project, whose packages come first on the path."""
    environment = os.environ | BY_TORCH | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=project, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=240
    ).stdout


def test_the_wheel_puts_one_package_into_site_packages(wheel: Path) -> None:
    """No stranger's `service`, `indexer` or `migrations` is met, and all that runs is there."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"whatwhere"}
    modules = {path.relative_to(ROOT).as_posix() for name in NAMES for path in (ROOT / name).rglob("*.py")}
    face = {name.removeprefix("service/public/") for name in modules if name.startswith("service/public/")}
    ours = {name for name in modules if not name.startswith("service/public/")} | face
    assert {name.removeprefix("whatwhere/") for name in names if name.endswith(".py")} == ours
    for file in ("py.typed", "migrations/script.py.mako", "service/web/page/index.html"):
        assert f"whatwhere/{file}" in names
    assert any(name.startswith("whatwhere/indexer/whiteners/") for name in names)


def test_every_folder_of_modules_is_a_package_of_the_distribution() -> None:
    """The list in pyproject.toml is complete: an editable install would not notice."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for name in NAMES for path in (ROOT / name).rglob("*.py")}

    expected = {"whatwhere." + folder.as_posix().replace("/", ".") for folder in folders}
    assert set(listed) == expected - {"whatwhere.service.public"} | {"whatwhere"}


def test_it_indexes_searches_and_serves_among_packages_of_the_same_names(installed: Path, project: Path) -> None:
    """Another `migrations` makes no database without tables, another `service` does not hide the client."""
    pictures = [SCIKIT_IMAGE / f"{name}.png" for name in ("chelsea", "coffee", "motorcycle_right")]
    python, whatwhere = installed / "python", installed / "whatwhere"

    said = run([python, "-c", COMMANDS, whatwhere, QUERY_PHOTOGRAPH, *pictures], project)

    uri, asked = json.loads(said.splitlines()[-1])
    assert uri.endswith("motorcycle_right.png")
    assert asked == ["motorcycle_right.png"]


def test_importing_the_face_imports_nothing_heavy(installed: Path, project: Path) -> None:
    """`from whatwhere import Client` needs neither torch nor faiss nor a database."""
    code = "import sys; from whatwhere import Box, Client, SearchOptions, errors; print([*sys.modules])"

    modules = set(json.loads(run([installed / "python", "-c", code], project).replace("'", '"')))

    assert not modules & {"torch", "faiss", "sqlalchemy", "alembic", "scipy", "sklearn", "pandas", "numba", "PIL"}


def test_the_face_holds_what_it_lists() -> None:
    """Every name of `__all__` is there, and nothing else is offered."""
    import whatwhere  # noqa: PLC0415 - the face itself is what is looked at

    assert all(getattr(whatwhere, name) is not None for name in whatwhere.__all__)
    assert dir(whatwhere) == sorted(whatwhere.__all__)
    with pytest.raises(AttributeError, match="__all__"):
        whatwhere.index_path  # noqa: B018
