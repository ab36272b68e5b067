"""Which files are images, which have sidecars, and which are gone."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.sources.scan import find, gone, scan

# --- finding ----------------------------------------------------------------------------------------------------


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_folder_is_searched_through_all_its_folders_in_order(tmp_path: Path) -> None:
    """Files come sorted within each folder, a folder's own before those of the folders in it."""
    own = [f"{letter}.jpg" for letter in "bcdefghij"]
    names = [*own, "a/z.jpg", "a/deep/er/x.jpg", *(f"{letter}/a.jpg" for letter in "defghij")]
    expected = [tmp_path / name for name in names]
    for path in random.Random(5).sample(expected, len(expected)):
        touch(path)

    files, ignored = scan([tmp_path])

    assert files == expected
    assert ignored == 0


@pytest.mark.parametrize("name", ["a.jpg", "a.JPG", "a.Jpeg", "a.PNG", "a.webp", "a.gif", "a.TIFF", "a.tif", "a.bmp"])
def test_the_suffix_tells_images_in_a_folder(tmp_path: Path, name: str) -> None:
    """Suffixes count in upper, lower and mixed case."""
    path = touch(tmp_path / name)

    assert scan([tmp_path]) == ([path], 0)


def test_other_files_of_a_folder_are_counted(tmp_path: Path) -> None:
    """What is ignored is not silent."""
    for name in ("a.jpg", "notes.txt", "deeper/jpg", "deeper/movie.mp4", "deeper/.hidden"):
        touch(tmp_path / name)

    assert scan([tmp_path]) == ([tmp_path / "a.jpg"], 4)


def test_a_named_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    """Who names a file means it."""
    path = touch(tmp_path / "photograph.dat")

    assert scan([path]) == ([path], 0)


def test_paths_come_in_the_order_given(tmp_path: Path) -> None:
    """The first path comes first, whatever its name."""
    late, early = touch(tmp_path / "z" / "z.jpg"), touch(tmp_path / "a" / "a.jpg")

    assert scan([tmp_path / "z", early]) == ([late, early], 0)


def test_a_file_that_is_reached_twice_is_taken_once(tmp_path: Path) -> None:
    """A folder and a file in it, named or found, overlap without harm."""
    path = touch(tmp_path / "a" / "a.jpg")

    assert scan([path, tmp_path, tmp_path / "a", path])[0] == [path]


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    """A link back up cannot make the search endless."""
    path = touch(tmp_path / "a.jpg")
    (tmp_path / "up").symlink_to(tmp_path, target_is_directory=True)

    assert scan([tmp_path]) == ([path], 0)


def test_a_folder_that_is_called_like_an_image_is_a_folder(tmp_path: Path) -> None:
    """Its content is searched, it is no image itself."""
    path = touch(tmp_path / "holiday.jpg" / "a.jpg")

    assert scan([tmp_path]) == ([path], 0)


def test_relative_paths_come_back_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source does not depend on the directory that a run was started in."""
    path = touch(tmp_path / "in" / "a.jpg")
    monkeypatch.chdir(tmp_path)

    assert scan([Path("in")]) == scan([Path("in/a.jpg")]) == ([path], 0)


@pytest.mark.parametrize("folder", ["{here}", "."], ids=["absolute folder", "relative folder"])
@pytest.mark.parametrize(
    "collection", ["{here}/c.ww", "c.ww", "./c.ww", "sub/../c.ww"], ids=["absolute", "relative", "dotted", "roundabout"]
)
def test_the_collection_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, collection: str
) -> None:
    """A collection inside the folder is left out, however both are written."""
    path = touch(tmp_path / "a.jpg")
    for name in ("c.ww/catalog.db", "c.ww/shards/looks-like.jpg"):
        touch(tmp_path / name)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)

    found = scan([Path(folder.format(here=tmp_path))], skip=Path(collection.format(here=tmp_path)))

    assert found == ([path], 0)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the path as it was given, and the field."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidRequest, match=r"^no/where does not exist: use a folder, an image file") as raised:
        scan([tmp_path, Path("no/where")])

    assert raised.value.field == "paths"


# --- sidecars ---------------------------------------------------------------------------------------------------


def test_a_picture_in_a_folder_is_found_with_its_sidecar(tmp_path: Path) -> None:
    """The sidecar is neither a picture nor an ignored file; JSON that belongs to no picture is ignored."""
    path, bare = touch(tmp_path / "a" / "x.jpg"), touch(tmp_path / "a" / "y.jpg")
    for name in ("a/x.jpg.json", "a/z.jpg.json", "x.jpg.json"):
        touch(tmp_path / name)

    found = find([tmp_path])

    assert list(found.pictures) == [path.as_uri(), bare.as_uri()]
    assert found.sidecars == {path.as_uri(): ("x.jpg.json",)}
    assert found.ignored == 2


def test_a_picture_that_is_named_is_found_with_its_sidecar(tmp_path: Path) -> None:
    """Whatever it is called."""
    path, bare = touch(tmp_path / "x.dat"), touch(tmp_path / "y.jpg")
    touch(tmp_path / "x.dat.json")

    assert find([path, bare]).sidecars == {path.as_uri(): ("x.dat.json",)}


# --- gone -------------------------------------------------------------------------------------------------------


def test_the_places_that_were_searched_are_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of folders end in a slash, so that no other folder's name begins with them."""
    path = touch(tmp_path / "a b" / "x.jpg")
    monkeypatch.chdir(tmp_path)

    assert find([Path("a b"), path]).places == [(tmp_path / "a b").as_uri() + "/", path.as_uri()]
    assert find([]).places == []


def test_only_what_is_not_there_is_gone(tmp_path: Path) -> None:
    """Not a file that is there, nor a link to nowhere, nor a name that the file system cannot even look up."""
    (tmp_path / "link.jpg").symlink_to("nowhere")
    there = [touch(tmp_path / "a.jpg"), tmp_path / "link.jpg", tmp_path / ("x" * 300)]
    missing = [tmp_path / "b.jpg", tmp_path / "no" / "folder.jpg", tmp_path / "a.jpg" / "below-a-file.jpg"]

    found = gone([path.as_uri() for path in (*there, *missing)], [])

    assert found == [path.as_uri() for path in missing]


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """Give a folder that cannot be listed, beside one that can."""
    touch(tmp_path / "open" / "a.jpg")
    folder = touch(tmp_path / "closed" / "b.jpg").parent
    yield folder
    folder.chmod(0o700)


@pytest.mark.usefixtures("mortal")
@pytest.mark.parametrize("mode", [0o000, 0o100], ids=["closed", "not listed"])
def test_nothing_below_a_folder_that_cannot_be_listed_is_gone(tmp_path: Path, closed: Path, mode: int) -> None:
    """The folder is reported, the others are searched all the same."""
    closed.chmod(mode)

    found = find([tmp_path])

    assert list(found.pictures) == [(tmp_path / "open" / "a.jpg").as_uri()]
    assert found.unlisted == [closed.as_uri() + "/"]
    uris = [(closed / "b.jpg").as_uri(), (closed / "never-there.jpg").as_uri(), (tmp_path / "c.jpg").as_uri()]
    assert gone(uris, found.unlisted) == [uris[2]]


@pytest.mark.usefixtures("mortal")
def test_a_given_folder_that_cannot_be_listed_is_reported(closed: Path) -> None:
    """Also where it is the one that was asked for."""
    closed.chmod(0o000)

    found = find([closed])

    assert found.unlisted == found.places == [closed.as_uri() + "/"]


def test_a_folder_that_goes_while_it_is_searched_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are out of sight, which is less than gone; the next run will see."""
    folder = touch(tmp_path / "a" / "x.jpg").parent
    scandir = os.scandir

    def remove_first(path: str) -> object:
        if path == str(folder):
            shutil.rmtree(folder)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", remove_first)

    found = find([tmp_path])

    assert found.unlisted == [folder.as_uri() + "/"]
    assert gone([(folder / "x.jpg").as_uri()], found.unlisted) == []
