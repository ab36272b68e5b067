"""A folder of phones' and cameras' files is indexed, searched and shown as one of JPEGs is."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import camera_formats as made
from tests import commands

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.takes(15)]
MISNAMED = {"heic.jpg": "photo.heic", "jpeg.nef": "photo.mpo"}


def answer(*arguments: str | Path) -> Any:
    done = commands.run(*arguments, "--json", environment=os.environ | {"COLUMNS": "500"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of the photograph in each format, and twice under a wrong name."""
    folder = tmp_path_factory.mktemp("library")
    for name, (content, _) in made.one_of_each().items():
        (folder / name).write_bytes(content)
    for name, format_name in MISNAMED.items():
        (folder / name).write_bytes(made.one_of_each()[format_name][0] + b"\0")  # no copy: its hash differs
    return folder


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """Give its collection."""
    collection = tmp_path_factory.mktemp("collection") / "library.ww"
    done = commands.run("index", library, "--collection", collection, "--exif")
    assert done.returncode == 0, done.stderr
    return collection


def test_all_files_are_indexed_with_their_media_types(collection: Path) -> None:
    """The content decides; a camera's time is a field as a JPEG's is."""
    listed = {Path(image["uris"][0]).name: image for image in answer("images", "--collection", collection)}

    types = {name: mime_type for name, (_, mime_type) in made.one_of_each().items()}
    assert {name: image["mime_type"] for name, image in listed.items()} == {
        **types,
        "heic.jpg": "image/heic",
        "jpeg.nef": "image/jpeg",
    }
    assert listed["photo.heic"]["user_metadata"]["taken_time"] == made.TAKEN


@pytest.mark.parametrize("name", ["photo.heic", "photo.dng"])
def test_a_query_in_a_new_format_finds_all_others(collection: Path, library: Path, tmp_path: Path, name: str) -> None:
    """And is drawn with them."""
    query = shutil.copy(library / name, tmp_path / "query")
    sheet = tmp_path / "found.png"

    found = answer("search", query, "--collection", collection, "--picture", sheet)

    scores = {Path(hit["uri"]).name: hit["score"] for hit in found["hits"]}
    assert len(scores) == len(made.one_of_each()) + len(MISNAMED)
    assert min(scores.values()) > 0.85, scores  # the HEIC has 320 x 240 pixels, the others 640 x 480
    with Image.open(sheet) as picture:
        assert min(picture.size) > 200


@pytest.mark.parametrize("name", ["photo.heic", "photo.dng", "photo.jxl"])
def test_an_image_in_a_new_format_is_explained(collection: Path, library: Path, tmp_path: Path, name: str) -> None:
    """Its factors are drawn over the picture."""
    figure = tmp_path / "factors.png"

    done = commands.run("explain", library / name, "--collection", collection, "--picture", figure)

    assert done.returncode == 0, done.stderr
    with Image.open(figure) as picture:
        assert min(picture.size) > 200
