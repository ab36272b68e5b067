"""`whatwhere explain` and `whatwhere compare` as people run them, on photographs."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from tests import commands
from tests.conftest import QUERY_PHOTOGRAPH, SCIKIT_IMAGE
from tests.integration.test_index_command import images
from whatwhere.indexer.errors import ImageNotFound, InvalidRequest, UnknownName
from whatwhere.indexer.features.names import DEFAULT_RANK
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service import cli
from whatwhere.service.drawing.defaults import OPACITY
from whatwhere.service.local.files import explain_file
from whatwhere.service.search.heatmaps import PALETTE
from whatwhere.service.settings import Limits

ASTRONAUT, CAT = SCIKIT_IMAGE / "astronaut.png", SCIKIT_IMAGE / "chelsea.png"
OTHER_VIEW = SCIKIT_IMAGE / "motorcycle_right.png"

pytestmark = pytest.mark.usefixtures("one_thread")


def run(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli.app, [*map(str, arguments)], env={"COLUMNS": "200"})


def answer(*arguments: str | Path) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def name_of(collection: Path, file: str) -> str:
    """Return the name of the stored image that this file became."""
    return next(f"images/{record.id}" for record in images(collection) if record.uris[0].endswith(file))


def pixels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def colors_in(path: Path) -> set[str]:
    """Return the palette's colours that swatches of a picture have: 12 x 12 pixels each, more than in photographs."""
    found, counts = np.unique(pixels(path).reshape(-1, 3), axis=0, return_counts=True)
    of_swatches = {f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in found[counts >= 144].tolist()}
    return of_swatches & set(PALETTE)


def test_a_file_is_explained_at_each_rank() -> None:
    """So many factors as asked for, in the order asked for, each rank's shares sum to 1, strongest first."""
    told = answer("explain", ASTRONAUT, "--rank", "3,1")

    assert set(told) == {"image", "ranks", "principal_components"}
    assert told["image"] == "astronaut.png"
    assert [entry["rank"] for entry in told["ranks"]] == [3, 1]
    for entry in told["ranks"]:
        shares = [factor["share"] for factor in entry["factors"]]
        assert [factor["factor"] for factor in entry["factors"]] == list(range(entry["rank"]))
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        assert all(len(factor["box"]) == 4 for factor in entry["factors"])


def test_the_table_says_what_the_json_says(tmp_path: Path) -> None:
    """Rank, factor, share and box of each, and where the picture is."""
    picture = tmp_path / "why.png"

    printed = run("explain", ASTRONAUT, "--rank", "2", "--picture", picture).stdout

    lines = printed.splitlines()
    (entry,) = answer("explain", ASTRONAUT, "--rank", "2")["ranks"]
    for line, factor in zip(lines[1:3], entry["factors"], strict=True):
        box = ",".join(f"{side:.3f}" for side in factor["box"])
        assert line.split() == ["2", str(factor["factor"]), f"{factor['share']:.1%}", box]
    assert lines[-1] == f"picture: {picture}"


def test_the_picture_has_a_row_a_rank_and_a_color_a_factor(tmp_path: Path) -> None:
    """Two ranks are twice as high as one, three factors show the first three colours."""
    one, two = tmp_path / "one.png", tmp_path / "two.png"

    run("explain", ASTRONAUT, "--rank", "3", "--picture", one)
    run("explain", ASTRONAUT, "--rank", "3,2", "--picture", two)

    assert pixels(two).shape[0] == pytest.approx(2 * pixels(one).shape[0], abs=20)
    assert colors_in(one) == set(PALETTE[:3])


def test_principal_components_come_with_their_shares(tmp_path: Path) -> None:
    """One more row of the picture, three shares of the variance, largest first."""
    plain, with_components = tmp_path / "plain.png", tmp_path / "components.png"

    run("explain", CAT, "--rank", "2", "--picture", plain)
    told = answer("explain", CAT, "--rank", "2", "--pca", "--picture", with_components)

    shares = told["principal_components"]["variance_shares"]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert pixels(with_components).shape[0] > 1.8 * pixels(plain).shape[0]


def test_opacity_is_that_of_the_colors(tmp_path: Path) -> None:
    """At 0 the second tile is grey, the photograph itself is as it was."""
    gray, colored = tmp_path / "grey.png", tmp_path / "coloured.png"

    run("explain", CAT, "--rank", "1", "--picture", gray, "--opacity", "0")
    run("explain", CAT, "--rank", "1", "--picture", colored, "--opacity", "1")

    tile = pixels(gray).shape[1] // 3
    saturation = [np.ptp(pixels(path)[20:180, tile + 20 : 2 * tile - 20], axis=2).max() for path in (gray, colored)]
    assert saturation[0] == 0
    assert saturation[1] > 150


def test_another_network_gives_other_factors() -> None:
    """The named one describes the file."""
    by_default = answer("explain", CAT, "--rank", "3")
    by_another = answer("explain", CAT, "--rank", "3", "--backbone", "efficientnet-lite1", "--device", "cpu")

    assert by_default["ranks"] != by_another["ranks"]


def test_a_stored_image_is_explained_as_its_file_is(collection: Path, tmp_path: Path) -> None:
    """Stored factors are those that a file would get: no other truth."""
    picture = tmp_path / "why.png"

    by_name = answer("explain", name_of(collection, "chelsea.png"), "-c", collection, "--picture", picture)
    by_file = answer("explain", CAT)

    assert by_name["image"].startswith("images/")
    assert by_name["ranks"] == by_file["ranks"]
    assert colors_in(picture) == set(PALETTE[:DEFAULT_RANK])


def test_a_stored_image_whose_file_is_gone_is_drawn_on_white(tmp_path: Path) -> None:
    """Factors are in the collection: heatmaps need no file."""
    shutil.copy(CAT, tmp_path / "cat.png")
    index_paths([tmp_path / "cat.png"], tmp_path / "cats.ww", IndexSettings(descriptors=("what",), rank=2))
    (tmp_path / "cat.png").unlink()
    picture = tmp_path / "why.png"

    told = answer("explain", "images/1", "-c", tmp_path / "cats.ww", "--picture", picture)

    assert [entry["rank"] for entry in told["ranks"]] == [2]
    assert (pixels(picture)[20:180, 20:200] == 255).all()
    assert colors_in(picture) == set(PALETTE[:2])


def test_two_views_share_their_concepts(tmp_path: Path) -> None:
    """Of one motorbike: each concept is in both views, with about the same share."""
    picture = tmp_path / "common.png"

    told = answer("compare", QUERY_PHOTOGRAPH, OTHER_VIEW, "--rank", "4", "--picture", picture)

    assert told["rank"] == 4
    assert [entry["image"] for entry in told["images"]] == [QUERY_PHOTOGRAPH.name, OTHER_VIEW.name]
    left, right = ([factor["share"] for factor in entry["factors"]] for entry in told["images"])
    assert min(left + right) > 0.05
    assert left == pytest.approx(right, abs=0.2)
    assert colors_in(picture) == set(PALETTE[:4])


def test_stored_images_are_compared_by_their_names(collection: Path, tmp_path: Path) -> None:
    """The cat and the rocket share less than two views: some concept is in one of them alone."""
    names = [name_of(collection, file) for file in ("chelsea.png", "rocket.jpg")]
    picture = tmp_path / "common.png"

    told = answer("compare", *names, "-c", collection, "--picture", picture)

    assert [entry["image"] for entry in told["images"]] == names
    assert all(len(entry["factors"]) == Limits.default_compared_rank for entry in told["images"])
    boxes = [[factor["box"] for factor in entry["factors"]] for entry in told["images"]]
    assert any((first is None) != (second is None) for first, second in zip(*boxes, strict=True))
    with Image.open(picture) as drawn:
        assert drawn.width > (2 + Limits.default_compared_rank) * 100


@pytest.mark.parametrize("command", ["explain", "compare"])
def test_defaults_are_those_of_the_functions(command: str) -> None:
    """What --help says is what happens."""
    printed = " ".join(run(command, "--help").stdout.split())

    assert f"[default: {OPACITY}]" in printed
    assert f"[default: {DEFAULT_RANK if command == 'explain' else Limits.default_compared_rank}]" in printed
    assert "Example: whatwhere" in printed


def test_a_file_is_explained_at_the_rank_of_an_index() -> None:
    """Where none is named."""
    assert list(explain_file(CAT).by_rank) == [DEFAULT_RANK]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain", "images/1", "-c", "{collection}", "--rank", "2"), "--rank does not go with --collection"),
        (("explain", "images/1", "-c", "{collection}", "--pca"), "--pca does not go with --collection"),
        (("explain", "images/1", "-c", "{collection}", "--backbone", "vgg16"), "--backbone does not go"),
        (("compare", "images/1", "images/2", "-c", "{collection}", "--backbone", "vgg16"), "--backbone does not go"),
        (("explain", "images/1", "--server", "127.0.0.1:1", "--rank", "2"), "--rank does not go with --server"),
        (("explain", "images/1", "--server", "127.0.0.1:1", "--weights", "own.pth"), "a server has its own"),
        (("explain", "images/1", "--server", "127.0.0.1:1", "--device", "cpu"), "--device goes with --collection"),
        (("explain", "images/1", "-c", "{collection}", "--tls"), "need --server"),
        (("explain", "images/1", "-c", "{collection}", "--server", "127.0.0.1:1"), "either --server"),
        (("explain", "images/1"), "--collection"),
        (("compare", "images/1", "images/2"), "--collection"),
        (("compare", "{cat}"), "two images"),
        (("explain", "{cat}", "--rank", "0"), "1 to 16"),
        (("explain", "{cat}", "--rank", "2,x"), "1 to 16"),
        (("explain", "{cat}", "--rank", "17"), "1 to 16"),
    ],
)
def test_wrong_usage_is_refused_with_a_remedy(arguments: tuple[str, ...], said: str, collection: Path) -> None:
    """Exit code 2, and a sentence that names the option."""
    result = run(*(argument.format(collection=collection, cat=CAT) for argument in arguments))

    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("explain", "gone.jpg"), InvalidRequest, "gone.jpg: No such file"),
        (("compare", "{cat}", "gone.jpg"), InvalidRequest, "gone.jpg: No such file"),
        (("explain", "{cat}", "--backbone", "vgg61"), UnknownName, "vgg61"),
        (("compare", "images/1", "{cat}", "-c", "{collection}"), InvalidRequest, "name of a stored image"),
        (("explain", "images/999", "-c", "{collection}"), ImageNotFound, "images/999"),
        # Before the work: the image that is not there is not looked for.
        (("explain", "gone.jpg", "--picture", "{folder}/why.xyz"), InvalidRequest, ".png or .jpg"),
        (("explain", "gone.jpg", "--picture", "{folder}/none/why.png"), InvalidRequest, "its directory does not exist"),
        (("compare", "a.jpg", "b.jpg", "--picture", "{folder}"), InvalidRequest, "{folder}"),
    ],
)
def test_errors_name_what_was_wrong(
    arguments: tuple[str, ...], error: type[Exception], said: str, collection: Path, tmp_path: Path
) -> None:
    """What `main` prints in one line with exit code 1."""
    known = {"collection": str(collection), "cat": str(CAT), "folder": str(tmp_path)}

    result = run(*(argument.format(**known) for argument in arguments))

    assert isinstance(result.exception, error)
    assert said.format(**known) in str(result.exception)


def test_an_error_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    """In a real process, without a traceback."""
    picture = tmp_path / "why.png"

    done = commands.run("explain", "gone.jpg", "--picture", picture, environment=os.environ | {"COLUMNS": "200"})

    assert done.returncode == 1
    assert done.stderr.startswith("error: gone.jpg: No such file")
    assert not picture.exists()
