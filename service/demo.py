"""The demonstration behind `make demo`: the real commands, on photographs that installed packages carry.

One view of a motorbike is asked for with a box; the other view, which is in the collection, is found and boxed.
"""

import importlib.resources
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path("demo")
PHOTOGRAPHS = {
    "skimage": (
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
        "data/multipage_rgb.tif",  # a microscope's TIFF that no picture reader takes: recorded, with its reason
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


def main() -> None:
    """Index, serve, ask, draw, stop; exit 1 when the other view is not found first with a box on it."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    collection, answer = FOLDER / "collection", FOLDER / "answer.png"
    _run("index", str(_photographs()), "--collection", str(collection))
    _run("images", "--collection", str(collection), "--state", "failed")
    query = FOLDER / Path(QUERY[1]).name
    shutil.copy(_packaged(*QUERY), query)
    with _serving(collection) as address:
        question = ("search", str(query), "--server", address, "--region", REGION, "--top", "7", "--localize", "1")
        _run(*question, "--picture", str(answer))
        best = json.loads(_output(*question, "--json"))["hits"][0]
    if not best["uri"].endswith(EXPECTED) or best["box"] is None:
        sys.exit(f"the other view of the motorbike should have come first, with a box: {best}")
    print(f"\nLook at {answer.absolute()}: the box drawn on one view (orange) found the other (blue).")


def _packaged(package: str, path: str) -> Path:
    return Path(str(importlib.resources.files(package))) / path


def _photographs() -> Path:
    folder = FOLDER / "photographs"
    folder.mkdir(parents=True)
    for package, paths in PHOTOGRAPHS.items():
        for path in paths:
            shutil.copy(_packaged(package, path), folder)
    return folder


def _command(*arguments: str) -> list[str]:
    print(f"\n$ whatwhere {shlex.join(arguments)}", flush=True)
    return [sys.executable, "-m", "service.cli", *arguments]


def _run(*arguments: str) -> None:
    subprocess.run(_command(*arguments), check=True)  # noqa: S603 - our own command


def _output(*arguments: str) -> str:
    return subprocess.run(_command(*arguments), check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


@contextmanager
def _serving(collection: Path) -> Iterator[str]:
    """Run a server on a free port and yield its address; it is stopped as an operator would, by SIGTERM."""
    command = _command("serve", "--collection", str(collection), "--listen", "127.0.0.1:0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own command
        try:
            assert server.stdout is not None
            ready = server.stdout.readline()
            if not ready:
                sys.exit("the server did not start; its messages are above")
            print(ready, end="", flush=True)
            yield ready.split()[-1]
        finally:
            os.kill(server.pid, signal.SIGTERM)
            server.wait(timeout=30)
            print("server stopped")


if __name__ == "__main__":
    main()
