"""`whatwhere demo`: the real commands, on photographs that installed packages carry.

One view of a motorbike is searched for with a box. The other view, which is in the collection, is found and boxed. Then
the page stays open on the collection until Ctrl-C; without a terminal it is only requested once.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.cli.app import app

FOLDER = Path("demo")
PHOTOGRAPHS = {
    "skimage": (  # scikit-image
        "data/astronaut.png",
        "data/brick.png",
        "data/camera.png",
        "data/chelsea.png",
        "data/clock_motion.png",
        "data/coffee.png",
        "data/coins.png",
        "data/color.png",
        "data/grass.png",
        "data/gravel.png",
        "data/horse.png",
        "data/hubble_deep_field.jpg",
        "data/ihc.png",
        "data/moon.png",
        "data/motorcycle_right.png",
        "data/multipage_rgb.tif",  # a microscope's TIFF that no image library reads: it is recorded with its reason
        "data/page.png",
        "data/retina.jpg",
        "data/rocket.jpg",
        "data/text.png",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
QUERY = ("skimage", "data/motorcycle_left.png")
EXPECTED = "motorcycle_right.png"
REGION = "90,100,690,455px"


@app.command()
def demo(no_web: Annotated[bool, typer.Option("--no-web", help="Leave the web page out.")] = False) -> None:
    """Try it: index 22 photographs into ./demo, serve them, search with a box, and open the web page.

    The photographs come with scikit-image and scikit-learn: `pip install 'whatwhere[demo]'`. The folder of an
    earlier demonstration is replaced.
    """
    packages = {package: _package(package) for package in PHOTOGRAPHS}
    _forget_earlier()
    collection, answer = FOLDER / "collection", FOLDER / "answer.png"
    _run("index", str(_photographs(packages)), "--collection", str(collection))
    _run("images", "--collection", str(collection), "--state", "failed")
    query = FOLDER / Path(QUERY[1]).name
    shutil.copy(packages[QUERY[0]] / QUERY[1], query)
    with _serving(collection, web=not no_web) as (address, page):
        question = ("search", str(query), "--server", address, "--region", REGION, "--top", "7", "--localize", "1")
        _run(*question, "--picture", str(answer))
        best = json.loads(_output(*question, "--json"))["hits"][0]
        if not best["uri"].endswith(EXPECTED) or best["box"] is None:
            sys.exit(f"the other view of the motorbike should have come first, with a box: {best}")
        print(f"\nLook at {answer.absolute()}: the box drawn on one view (orange) found the other (blue).")
        if page is not None:
            _show(page, query)


def _forget_earlier() -> None:
    """Remove the folder of an earlier demonstration; InvalidRequest if it holds anything else."""
    if not os.path.lexists(FOLDER):
        return
    ours = {"photographs", "collection", "answer.png", Path(QUERY[1]).name}
    if FOLDER.is_symlink() or not FOLDER.is_dir() or {entry.name for entry in FOLDER.iterdir()} - ours:
        raise InvalidRequest(
            f"{FOLDER.absolute()} is not of an earlier demonstration, and would be replaced: run this in another folder"
        )
    shutil.rmtree(FOLDER)


def _package(name: str) -> Path:
    """Return the folder of an installed package, without importing it; InvalidRequest if it is not installed."""
    import importlib.util

    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise InvalidRequest(
            f"the demonstration's photographs come with {name}, which is not installed: pip install 'whatwhere[demo]'"
        )
    return Path(spec.origin).parent


def _photographs(packages: dict[str, Path]) -> Path:
    folder = FOLDER / "photographs"
    folder.mkdir(parents=True)
    for package, paths in PHOTOGRAPHS.items():
        for path in paths:
            shutil.copy(packages[package] / path, folder)
    return folder


def _command(*arguments: str) -> list[str]:
    print(f"\n$ whatwhere {shlex.join(arguments)}", flush=True)
    return [sys.executable, "-m", "whatwhere.service.cli", *arguments]


def _run(*arguments: str) -> None:
    """Run a command; if it fails, its message is printed already, and the demonstration ends with its exit code."""
    done = subprocess.run(_command(*arguments), check=False)  # noqa: S603 - our own command
    if done.returncode:
        sys.exit(done.returncode)


def _output(*arguments: str) -> str:
    return subprocess.run(_command(*arguments), check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def _show(page: str, query: Path) -> None:
    """Say where the page is, and keep it open until Ctrl-C if a person is at the terminal."""
    import urllib.request

    with urllib.request.urlopen(page, timeout=30) as answered:  # noqa: S310 - our own server
        answered.read()
    if not sys.stdin.isatty():
        print(f"The page on these photographs answered at {page}; from a terminal it stays open.")
        return
    print(f"Search yourself: {page} is open on these photographs; drop {query.absolute()} on it. Ctrl-C ends it.")
    with suppress(KeyboardInterrupt):
        signal.pause()


@contextmanager
def _serving(collection: Path, *, web: bool) -> Iterator[tuple[str, str | None]]:
    """Run a server on free ports and yield its address and its page's; it is stopped with SIGTERM."""
    page = ("--web", "127.0.0.1:0") if web else ()
    command = _command("serve", "--collection", str(collection), "--listen", "127.0.0.1:0", *page)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own command
        try:
            assert server.stdout is not None
            ready = server.stdout.readline()
            if not ready:
                sys.exit("the server did not start; its messages are above")
            print(ready, end="", flush=True)
            yield ready.split()[-1], server.stdout.readline().split()[-1] if web else None
        finally:
            os.kill(server.pid, signal.SIGTERM)
            server.wait(timeout=30)
            print("server stopped")
