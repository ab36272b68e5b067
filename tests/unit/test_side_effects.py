"""A program that uses us as a library stays as it was: its limits, warnings, loggers, threads and environment."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent

# What belongs to the whole process, and so to the program that uses us. Ours are our own loggers alone.
_STATE = """
import ast, importlib, json, logging, os, pathlib, pkgutil, signal, sys, threading, warnings

OURS = ("whatwhere", "tests")
FOLDERS = ("indexer", "service", "migrations")

def in_new_thread(read):
    found = []
    thread = threading.Thread(target=lambda: found.append(read()))
    thread.start()
    thread.join()
    return found[0]

def state():
    import numpy, PIL.Image, torch
    loggers = {
        name: (logger.level, logger.disabled, logger.propagate, str(logger.handlers), str(logger.filters))
        for name, logger in [("root", logging.getLogger()), *logging.root.manager.loggerDict.items()]
        if isinstance(logger, logging.Logger) and name.split(".")[0] not in OURS
    }
    return {
        "limit of pixels": PIL.Image.MAX_IMAGE_PIXELS,
        "filters of warnings": [str(filter) for filter in warnings.filters],
        "how warnings are shown": str(warnings.showwarning),
        "loggers": {name: found for name, found in loggers.items() if found != (0, False, True, "[]", "[]")},
        # gRPC's poller stays, once there was a server or a client.
        "threads": sorted(thread.name for thread in threading.enumerate() if "_poll_wrapper" not in thread.name),
        "torch's threads": (torch.get_num_threads(), in_new_thread(torch.get_num_threads)),
        "torch's defaults": (str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.initial_seed()),
        "numpy's errors": numpy.geterr(),
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)],
        "environment": dict(os.environ),
        "path": list(sys.path),
    }

def differences(before, after):
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}
"""

_IMPORTING = """
def ours():
    for package in ("whatwhere", "whatwhere.indexer", "whatwhere.service", "whatwhere.migrations"):
        yield package
        if package == "whatwhere":
            continue
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
            if not found.name.endswith((".__main__", ".public", "whatwhere.migrations.env")):  # these two run something
                yield found.name

def foreign(statements):
    for node in statements:
        if isinstance(node, ast.Try | ast.If):
            yield from foreign(node.body)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)

# What the libraries do when they are imported is theirs: they come first.
libraries = {
    name
    for package in FOLDERS
    for path in pathlib.Path(package).rglob("*.py")
    for name in foreign(ast.parse(path.read_text()).body)
    if name.split(".")[0] not in OURS
}
for name in sorted(libraries):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:  # what is imported from a module need not be one
        pass
before = state()
modules = [importlib.import_module(name) for name in ours()]
found = differences(before, state())

import asyncio, concurrent.futures, random
import numpy, torch
from whatwhere.indexer.sources.remote import Remote
kinds = (
    random.Random, numpy.random.Generator, torch.Generator, asyncio.AbstractEventLoop, threading.Thread,
    concurrent.futures.Executor, Remote,
)
held = [f"{module.__name__}.{name}" for module in modules for name, value in vars(module).items()
        if isinstance(value, kinds)]
imported = {"changed": found, "held": held, "modules": len(modules)}
"""

# With each engine in turn: what either changes when it is first used is seen.
_USING = """
import alembic.command, numpy, pathlib, torch  # which set up their own loggers
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.service.search.searcher import Query, open_searcher
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

folder = pathlib.Path(sys.argv[1])

def use(engine, threads):
    os.environ["WHATWHERE_ENGINE"] = engine
    root = folder / f"{engine}.ww"
    torch.set_num_threads(threads)
    warnings.simplefilter("default")
    before = state()
    found = {}

    index_paths(sorted(folder.glob("*.png")), root)
    found["indexing"] = differences(before, state())

    with open_collection(root) as reader:
        searcher = open_searcher(reader)
        searcher.describer.describe([numpy.zeros((512, 512, 3), dtype="uint8")])
        found["describing"] = differences(before, state() | {"threads": before["threads"]})  # the network has its own
        result = searcher.search(Query(content=next(folder.glob("*.png")).read_bytes()))
        searcher.batcher.close()
    found["searching"] = differences(before, state())

    server, port = create_server(ServerSettings(root, listen="127.0.0.1:0"))
    server.start()
    server.stop(None)
    found["serving"] = differences(before, state() | {"torch's threads": before["torch's threads"]})  # a server's own
    return {"found": found, "hits": len(result.hits), "engine": searcher.describer.backbone.engine.name}

used = {"openvino": use("openvino", 3), "torch": use("torch", 2)}
print(json.dumps({"imported": imported, "used": used}))
"""


def picture(seed: int) -> Image.Image:
    """Draw a narrow picture: the network takes a quarter of the time for it."""
    squares = np.random.default_rng(seed).integers(0, 256, (1, 12, 3), dtype=np.uint8)
    return Image.fromarray(squares.repeat(8, axis=1))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give what a program found that imported every module, and then used them: an interpreter takes 6 s to start."""
    folder = tmp_path_factory.mktemp("using")
    for number in range(3):
        picture(number).save(folder / f"{number}.png")
    script = _STATE + _IMPORTING + _USING
    done = subprocess.run([sys.executable, "-c", script, folder], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_importing_every_module_changes_nothing_of_the_process(found: dict[str, Any]) -> None:
    """Beyond what the libraries do; and none holds a loop, a thread, a generator or a reader for the whole process."""
    imported = found["imported"]

    assert imported["modules"] > 100
    assert imported["changed"] == {}
    assert imported["held"] == []


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_program_that_indexes_and_searches_stays_as_it_was(engine: str, found: dict[str, Any]) -> None:
    """By either engine: torch's threads, too, of the thread that called and of those that begin later."""
    assert found["used"][engine] == {
        "found": {"indexing": {}, "describing": {}, "searching": {}, "serving": {}},
        "hits": 3,
        "engine": engine,
    }


_QUIET = """
import logging, warnings
from PIL import Image, TiffImagePlugin
from whatwhere.service.cli import quiet_libraries

def speak():
    warnings.warn_explicit("a torn file", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
    logging.getLogger("pymilvus.decorators").error("a failed try")

quiet_libraries()
import pymilvus  # sets up its loggers
speak()
warnings.warn("others may warn")
"""


def test_the_command_line_keeps_what_we_name_ourselves_from_being_told_twice() -> None:
    """Pillow's warnings of torn files, and pymilvus's tracebacks of failed tries; it is the process that decides."""
    done = subprocess.run([sys.executable, "-c", _QUIET], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "others may warn" in done.stderr
    assert "torn" not in done.stderr
    assert "failed try" not in done.stderr
