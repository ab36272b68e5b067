"""From files to a published collection: small real photographs, the real network."""

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import sklearn.datasets
import torch
from PIL import Image

import indexer.pipeline
from indexer import whitening
from indexer.catalog import Catalog, ImageRecord
from indexer.collection import Layout, Manifest, Recipe, open_collection
from indexer.describe import Describer, Description
from indexer.errors import (
    CollectionMismatch,
    DeviceUnavailable,
    InvalidRequest,
    UnknownName,
    WhatwhereError,
    WhitenerUnavailable,
)
from indexer.images import ImageLimits
from indexer.methods import find_method, training_rows
from indexer.pipeline import IndexSettings, Progress, in_groups, index_paths, map_ahead, scan, source_of
from indexer.train import TrainingSettings, evenly_chosen, fit_whiteners, train_whiteners, whiteners_of
from tests.conftest import as_version_0_1_0_wrote, rows, written

SCIKIT_IMAGE = Path(skimage.data.__file__).parent
PHOTOGRAPHS = (
    SCIKIT_IMAGE / "astronaut.png",
    SCIKIT_IMAGE / "chelsea.png",
    SCIKIT_IMAGE / "coffee.png",
    SCIKIT_IMAGE / "rocket.jpg",
    Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg",
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def thumbnails(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Give five small photographs of several shapes."""
    folder = tmp_path_factory.mktemp("thumbnails")
    for path in PHOTOGRAPHS:
        with Image.open(path) as picture:
            picture.thumbnail((96, 96))
            picture.save(folder / f"{path.stem}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an empty folder for photographs."""
    made = tmp_path / "photographs"
    made.mkdir()
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a directory for a collection that is not there yet."""
    return tmp_path / "collection.ww"


def put(source: Path, target: Path) -> Path:
    """Copy a photograph, with a time of its own."""
    shutil.copyfile(source, target)
    return target


def images(root: Path) -> dict[str, ImageRecord]:
    """Return the images of a collection by the name of each of their files."""
    with Catalog.open(Layout(root).catalog) as catalog:
        return {uri.rpartition("/")[2]: image for image in catalog.images() for uri in image.uris}


def counts(progress: Progress) -> dict[str, int]:
    """Return the counts that are not zero."""
    return {name: value for name, value in vars(progress).items() if value}


# --- scanning ---------------------------------------------------------------------------------------------------


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_folder_is_searched_through_all_its_folders_in_order(tmp_path: Path) -> None:
    """Files come sorted within each folder, a folder's own before those of the folders in it."""
    names = ("b.jpg", "c.png", "a/z.jpg", "a/deep/er/x.jpg", *(f"{letter}/a.jpg" for letter in "defghij"))
    expected = [tmp_path / name for name in names]
    for path in reversed(expected):
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


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """The error names the path and the field."""
    with pytest.raises(InvalidRequest, match=r"nowhere does not exist: give a folder or an image file") as raised:
        scan([tmp_path, tmp_path / "nowhere"])

    assert raised.value.field == "paths"


def test_a_file_that_vanished_is_an_empty_source(tmp_path: Path) -> None:
    """What is gone after the scan has no size and no time."""
    assert source_of(tmp_path / "gone.jpg").byte_count == 0


# --- working ahead ----------------------------------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Give four threads."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


def test_results_keep_the_order_of_the_items(pool: ThreadPoolExecutor) -> None:
    """Items that take longer do not come later."""
    released = threading.Event()

    def square(number: int) -> int:
        if number == 0:
            released.wait(5)
        if number == 3:
            released.set()
        return number * number

    assert list(map_ahead(pool, square, range(20), ahead=6)) == [number * number for number in range(20)]


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_than_so_many_items_are_taken_ahead(pool: ThreadPoolExecutor, ahead: int) -> None:
    """Memory stays bounded: after n results, n + ahead items have been asked for, and never all."""
    taken = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    results = map_ahead(pool, str, items(), ahead)

    for done in (1, 2, 3):
        next(results)
        assert len(taken) == done + ahead


def test_an_exception_reaches_the_one_who_asks(pool: ThreadPoolExecutor) -> None:
    """The results before it come first, then the exception of the item that failed."""
    results = map_ahead(pool, lambda number: 1 // (2 - number), range(5), ahead=4)

    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("end", ["by an exception", "by closing"])
def test_what_waits_is_cancelled_at_an_early_end(end: str) -> None:
    """Items that no thread has begun are not worked on when nobody will ask for them."""
    worked_on: list[int] = []
    ended = threading.Event()

    def work(number: int) -> None:
        worked_on.append(number)
        if number == 0 and end == "by an exception":
            raise ValueError
        if number == 1:
            ended.wait(5)

    with ThreadPoolExecutor(1) as one_thread:
        results = map_ahead(one_thread, work, range(10), ahead=5)
        with suppress(ValueError):
            next(results)
        results.close()  # type: ignore[attr-defined]
        ended.set()

    assert set(worked_on) <= {0, 1}


@pytest.mark.parametrize(
    ("length", "expected"), [(0, []), (1, [[0]]), (3, [[0, 1, 2]]), (4, [[0, 1, 2], [3]]), (6, [[0, 1, 2], [3, 4, 5]])]
)
def test_groups_are_full_but_for_the_last(length: int, expected: list[list[int]]) -> None:
    """Every item is in one group, in order."""
    assert list(in_groups(range(length), 3)) == expected


def test_groups_are_made_as_they_are_asked_for() -> None:
    """An endless source can be grouped."""
    groups = in_groups(count(), 2)

    assert [next(groups), next(groups)] == [[0, 1], [2, 3]]


# --- runs -------------------------------------------------------------------------------------------------------


def test_a_first_run_describes_everything(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """The summary counts what was done, and what was published can be searched."""
    for path in thumbnails[:2]:
        put(path, folder / path.name)
    (folder / "notes.txt").touch()

    summary = index_paths([folder], root)

    assert counts(summary.progress) == {"total": 2, "described": 2}
    assert (summary.ignored, summary.images, summary.generation, summary.published) == (1, 2, 1, True)
    with open_collection(root) as reader:
        assert reader.index("what").vectors.ids.tolist() == [1, 2]


def test_an_image_is_recorded_with_its_own_size(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """Size, type and bytes are those of the file, not of what the network sees."""
    path = put(thumbnails[1], folder / "a.png")

    index_paths([path], root)

    image = images(root)["a.png"]
    with Image.open(path) as picture:
        assert picture.width != picture.height
        assert (image.width, image.height) == picture.size
    assert (image.byte_count, image.mime_type) == (path.stat().st_size, "image/png")
    assert image.uris == (path.as_uri(),)


def test_a_second_run_describes_only_what_is_new(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """Images that are there keep their ids."""
    put(thumbnails[1], folder / "b.png")
    index_paths([folder], root)
    put(thumbnails[0], folder / "a.png")

    summary = index_paths([folder], root)

    assert counts(summary.progress) == {"total": 2, "described": 1, "unchanged": 1}
    assert {name: image.id for name, image in images(root).items()} == {"b.png": 1, "a.png": 2}
    assert summary.generation == 2


def test_a_run_without_changes_publishes_nothing(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """The generation stays."""
    put(thumbnails[0], folder / "a.png")
    index_paths([folder], root)

    summary = index_paths([folder], root)

    assert counts(summary.progress) == {"total": 1, "unchanged": 1}
    assert (summary.images, summary.generation, summary.published) == (1, 1, False)


def test_a_file_with_other_content_is_described_anew(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """The new content has a new id, the old one leaves the index."""
    path = put(thumbnails[0], folder / "a.png")
    index_paths([folder], root)
    put(thumbnails[1], path)

    summary = index_paths([folder], root)

    assert counts(summary.progress) == {"total": 1, "described": 1}
    assert images(root)["a.png"].id == 2
    with open_collection(root) as reader:
        assert reader.index("what").vectors.ids.tolist() == [2]


def test_a_file_that_was_only_touched_is_not_described(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """A new time means a look at the bytes, once."""
    path = put(thumbnails[0], folder / "a.png")
    index_paths([folder], root)
    os.utime(path, ns=(1, 1))

    touched, again = index_paths([folder], root), index_paths([folder], root)

    assert (touched.progress.described, touched.published, images(root)["a.png"].id) == (0, False, 1)
    assert counts(again.progress) == {"total": 1, "unchanged": 1}


def test_a_file_that_was_moved_is_recognised(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """The image keeps its id and gains the place."""
    path = put(thumbnails[0], folder / "a.png")
    index_paths([folder], root)
    path.rename(folder / "moved.png")

    summary = index_paths([folder], root)

    assert (summary.progress.described, summary.published) == (0, False)
    assert images(root)["moved.png"].id == 1


@pytest.mark.parametrize("batch_size", [1, 3], ids=["in batches of their own", "in one batch"])
def test_copies_are_one_image(folder: Path, root: Path, thumbnails: Sequence[Path], batch_size: int) -> None:
    """Only the first copy is described; the others are counted and add their places."""
    for name in ("a.png", "b.png", "c.png"):
        put(thumbnails[0], folder / name)

    summary = index_paths([folder], root, IndexSettings(batch_size=batch_size))

    assert counts(summary.progress) == {"total": 3, "described": 1, "duplicates": 2}
    assert summary.images == 1
    assert images(root)["a.png"].uris == tuple((folder / name).as_uri() for name in ("a.png", "b.png", "c.png"))


def test_a_copy_that_was_decoded_ahead_of_the_first_is_one_image(
    folder: Path, root: Path, thumbnails: Sequence[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content that was kept while its copy was already waiting is not described again."""
    monkeypatch.setattr(indexer.pipeline, "SHARD_SOURCES", 1)
    for name in ("a.png", "b.png"):
        put(thumbnails[0], folder / name)

    summary = index_paths([folder], root, IndexSettings(batch_size=1))

    assert counts(summary.progress) == {"total": 2, "described": 1, "duplicates": 1}


def test_known_content_is_not_decoded_again(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """Limits of today do not fail what was indexed under those of yesterday."""
    path = put(thumbnails[0], folder / "a.png")
    index_paths([folder], root)
    os.utime(path, ns=(1, 1))

    summary = index_paths([folder], root, IndexSettings(limits=ImageLimits(max_pixels=10)))

    assert summary.progress.failed == 0
    assert images(root)["a.png"].state == "indexed"


def test_a_copy_in_a_later_run_is_one_image(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """Content that the collection has is not described again."""
    put(thumbnails[0], folder / "a.png")
    index_paths([folder], root)
    put(thumbnails[0], folder / "b.png")

    summary = index_paths([folder], root)

    assert counts(summary.progress) == {"total": 2, "duplicates": 1, "unchanged": 1}


def test_a_changed_file_is_noticed_by_its_checksum(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """A change that kept size and time is seen when every file is read."""
    path = folder / "a.bmp"
    with Image.open(thumbnails[0]) as picture:
        picture.convert("RGB").save(path)
        before = path.stat()
        index_paths([folder], root)
        picture.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    quick = index_paths([folder], root)
    thorough = index_paths([folder], root, IndexSettings(checksum=True))

    assert path.stat().st_size == before.st_size
    assert counts(quick.progress) == {"total": 1, "unchanged": 1}
    assert counts(thorough.progress) == {"total": 1, "described": 1}


def test_the_collection_may_lie_among_the_photographs(
    folder: Path, thumbnails: Sequence[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are neither indexed nor counted, also when it is named relative to the directory."""
    put(thumbnails[0], folder / "a.png")
    monkeypatch.chdir(folder)

    for _ in range(2):
        summary = index_paths([folder], Path("collection.ww"))

    assert (summary.progress.total, summary.ignored) == (1, 0)


def test_progress_ends_at_the_total(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """Reports never go back, and the last one is the summary's."""
    put(thumbnails[0], folder / "a.png")
    index_paths([folder], root)
    put(thumbnails[0], folder / "b.png")
    put(thumbnails[1], folder / "c.png")
    (folder / "d.png").write_text("torn")
    reports: list[Progress] = []

    summary = index_paths([folder], root, on_progress=reports.append)

    assert [report.total for report in reports] == [4] * len(reports)
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert reports[-1] == summary.progress
    assert counts(summary.progress) == {"total": 4, "described": 1, "failed": 1, "duplicates": 1, "unchanged": 1}
    assert summary.progress.done == 4


# --- bad images -------------------------------------------------------------------------------------------------

LIMITS = ImageLimits(max_bytes=40_000, max_pixels=20_000)


def truncated(path: Path, photograph: Path) -> None:
    content = photograph.read_bytes()
    path.write_bytes(content[: len(content) // 2])


BAD = {
    "truncated.png": (truncated, "UNREADABLE_IMAGE"),
    "text.jpg": (lambda path, _: path.write_text("no image at all"), "UNREADABLE_IMAGE"),
    "empty.jpg": (lambda path, _: path.touch(), "UNREADABLE_IMAGE"),
    "large.png": (lambda path, _: Image.new("L", (200, 101)).save(path), "IMAGE_TOO_MANY_PIXELS"),
    "heavy.jpg": (lambda path, _: path.write_bytes(bytes(40_001)), "IMAGE_TOO_MANY_BYTES"),
    "nowhere.jpg": (lambda path, _: path.symlink_to("gone"), "UNREADABLE_IMAGE"),
    "itself.jpg": (lambda path, _: path.symlink_to("itself.jpg"), "UNREADABLE_IMAGE"),
    "pipe.jpg": (lambda path, _: os.mkfifo(path), "UNREADABLE_IMAGE"),
}


@pytest.fixture(scope="module")
def with_bad_images(tmp_path_factory: pytest.TempPathFactory, thumbnails: Sequence[Path]) -> tuple[Path, Progress]:
    """Give a collection that was made from one photograph among bad images, and what the run counted."""
    folder, root = tmp_path_factory.mktemp("bad"), tmp_path_factory.mktemp("collection") / "bad.ww"
    for name, (make, _) in BAD.items():
        make(folder / name, thumbnails[0])
    put(thumbnails[0], folder / "photograph.png")
    return root, index_paths([folder], root, IndexSettings(batch_size=2, limits=LIMITS)).progress


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in BAD.items()])
def test_a_bad_image_is_recorded_with_its_reason(
    with_bad_images: tuple[Path, Progress], name: str, reason: str
) -> None:
    """The reason has a name for programs and a message that names the file."""
    root, _ = with_bad_images

    image = images(root)[name]

    assert (image.state, image.failure_reason) == ("failed", reason)
    assert (image.failure_message or "").startswith(f"{name}: ")


def test_what_is_too_heavy_is_not_read(with_bad_images: tuple[Path, Progress]) -> None:
    """The size alone decides; the content is never known."""
    root, _ = with_bad_images

    assert images(root)["heavy.jpg"].content_hash is None


def test_bad_images_stop_nothing(with_bad_images: tuple[Path, Progress]) -> None:
    """The photograph among them is indexed, and all of them are counted."""
    root, progress = with_bad_images

    assert counts(progress) == {"total": len(BAD) + 1, "failed": len(BAD), "described": 1}
    with open_collection(root) as reader:
        assert reader.index("what").vectors.ids.tolist() == [images(root)["photograph.png"].id]


def test_a_bad_image_whose_name_is_not_unicode_is_recorded(folder: Path, root: Path) -> None:
    """Names are bytes; one that is not UTF-8 stops nothing either."""
    path = Path(os.fsdecode(bytes(folder) + b"/caf\xe9.jpg"))
    path.write_text("torn")

    summary = index_paths([folder], root)

    assert counts(summary.progress) == {"total": 1, "failed": 1}
    assert images(root)["caf%E9.jpg"].failure_reason == "UNREADABLE_IMAGE"


def test_a_photograph_whose_name_is_not_unicode_is_indexed(
    folder: Path, root: Path, thumbnails: Sequence[Path]
) -> None:
    """Its URI keeps the bytes of the name."""
    put(thumbnails[0], Path(os.fsdecode(bytes(folder) + b"/caf\xe9.png")))

    summary = index_paths([folder], root)

    assert counts(summary.progress) == {"total": 1, "described": 1}
    assert images(root)["caf%E9.png"].state == "indexed"


def test_failures_are_tried_again_when_asked_for(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """What failed is left alone until a run retries it, and then keeps its id."""
    put(thumbnails[0], folder / "a.png")
    put(thumbnails[1], folder / "b.png")
    index_paths([folder / "a.png"], root)
    failing = index_paths([folder], root, IndexSettings(limits=ImageLimits(max_pixels=10)))

    left_alone = index_paths([folder], root)
    retried = index_paths([folder], root, IndexSettings(retry_failed=True))

    assert counts(failing.progress) == {"total": 2, "failed": 1, "unchanged": 1}
    assert counts(left_alone.progress) == {"total": 2, "unchanged": 2}
    assert counts(retried.progress) == {"total": 2, "described": 1, "unchanged": 1}
    assert (images(root)["b.png"].id, images(root)["b.png"].state) == (2, "indexed")


def test_a_failure_that_is_tried_again_can_fail_again(folder: Path, root: Path) -> None:
    """It stays the same failure."""
    (folder / "a.jpg").write_text("torn")
    index_paths([folder], root)

    summary = index_paths([folder], root, IndexSettings(retry_failed=True))

    assert counts(summary.progress) == {"total": 1, "failed": 1}
    assert (images(root)["a.jpg"].id, images(root)["a.jpg"].state) == (1, "failed")


def test_copies_of_a_failure_are_described_once_when_retried(
    folder: Path, root: Path, thumbnails: Sequence[Path]
) -> None:
    """Two places of the same failed content become one indexed image."""
    put(thumbnails[0], folder / "a.png")
    put(thumbnails[0], folder / "b.png")
    index_paths([folder], root, IndexSettings(limits=ImageLimits(max_pixels=10)))

    summary = index_paths([folder], root, IndexSettings(retry_failed=True, batch_size=1))

    assert counts(summary.progress) == {"total": 2, "described": 1, "unchanged": 1}
    assert rows(root)[0][3] == "indexed"


def test_a_file_that_could_not_be_read_is_tried_again_by_itself(
    folder: Path, root: Path, thumbnails: Sequence[Path]
) -> None:
    """What was missing may be back."""
    (folder / "a.png").symlink_to("target")
    index_paths([folder], root)
    put(thumbnails[0], folder / "target")

    summary = index_paths([folder], root)

    assert counts(summary.progress) == {"total": 1, "described": 1}
    assert images(root)["a.png"].state == "indexed"


def test_a_photograph_that_cannot_be_read_any_more_stays(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """A file server that is away does not empty the collection."""
    put(thumbnails[0], folder / "target")
    (folder / "a.png").symlink_to("target")
    index_paths([folder], root)
    (folder / "target").unlink()

    summary = index_paths([folder], root)

    assert counts(summary.progress) == {"total": 1, "failed": 1}
    assert (images(root)["a.png"].state, summary.images, summary.published) == ("indexed", 1, False)


# --- recipes and whiteners --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, thumbnails: Sequence[Path]) -> Path:
    """Give a collection of one photograph at rank 3, that no test may change."""
    root = tmp_path_factory.mktemp("small") / "small.ww"
    index_paths(thumbnails[:1], root, IndexSettings(rank=3, descriptors=("gem", "what")))
    return root


def test_a_new_collection_has_the_defaults(root: Path) -> None:
    """Rank 8 and the three descriptors that use factors, of the default preset on the default network."""
    index_paths([], root)

    recipe = Recipe.load(Layout(root))
    assert (recipe.backbone, recipe.precision, recipe.rank) == ("efficientnet-lite0", "float32", 8)
    assert (recipe.preset, recipe.descriptors) == ("default", ("what", "what-and-where", "fused"))


def test_the_settings_make_the_recipe(small: Path) -> None:
    """Rank and descriptors arrive in the collection, descriptors in one order whatever the order given."""
    recipe = Recipe.load(Layout(small))

    assert (recipe.rank, recipe.descriptors) == (3, ("what", "gem"))
    with open_collection(small) as reader:
        description = reader.description(reader.indexed_image(1))
        assert description.factors.what.shape[0] == 3
        assert description.pooled.keys() == {"gem"}
        assert reader.indexes.keys() == {"what", "gem"}


@pytest.mark.parametrize(
    ("descriptors", "kept"),
    [(("what", "what-and-where"), set()), (("fused",), {"r-mac"}), (("fused", "r-mac"), {"r-mac"})],
)
def test_what_is_pooled_is_what_the_descriptors_need(
    root: Path, thumbnails: Sequence[Path], descriptors: tuple[str, ...], kept: set[str]
) -> None:
    """The fused needs R-MAC's rows, the others nothing beside their factors."""
    index_paths(thumbnails[:1], root, IndexSettings(descriptors=descriptors))

    with open_collection(root) as reader:
        assert reader.description(reader.indexed_image(1)).pooled.keys() == kept
        assert tuple(reader.indexes) == descriptors


@pytest.mark.parametrize("preset", ["default", "thesis"])
def test_the_preset_decides_whiteners_and_vectors(root: Path, thumbnails: Sequence[Path], preset: str) -> None:
    """It arrives in the recipe; vectors are those of its methods through the ready-made whiteners of their rows."""
    index_paths(thumbnails[:2], root, IndexSettings(preset=preset))

    with open_collection(root) as reader:
        assert reader.recipe.preset == reader.manifest.recipe.preset == preset
        for name in ("what", "what-and-where", "fused"):
            method, index = find_method(name, preset), reader.index(name)
            assert tuple(whitener.key.descriptor for whitener in index.whiteners) == method.whiteners
            expected = method.describe(reader.description(reader.indexed_image(2)), index.whiteners)
            np.testing.assert_allclose(index.vectors.vector(2), expected, rtol=0, atol=1e-6)


def test_a_later_run_keeps_the_preset(root: Path, thumbnails: Sequence[Path]) -> None:
    """Whether it is said again or not."""
    index_paths(thumbnails[:1], root, IndexSettings(preset="thesis"))

    index_paths(thumbnails[:2], root)
    index_paths(thumbnails[:3], root, IndexSettings(preset="thesis"))

    with open_collection(root) as reader:
        assert (reader.recipe.preset, reader.manifest.image_count) == ("thesis", 3)


def test_a_collection_of_the_thesis_stays_one(root: Path, thumbnails: Sequence[Path]) -> None:
    """Another preset is refused by its name with the remedy, and changes nothing."""
    index_paths(thumbnails[:1], root, IndexSettings(preset="thesis"))
    before = written(root)

    with pytest.raises(
        CollectionMismatch,
        match="preset 'thesis', not 'default': use the collection's own, or index into a new directory",
    ):
        index_paths(thumbnails, root, IndexSettings(preset="default"))

    assert written(root) == before


def test_a_later_run_takes_the_collections_own_recipe(small: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """What is not said is as the collection was made."""
    shutil.copytree(small, root)

    index_paths(thumbnails[1:2], root)

    with open_collection(root) as reader:
        assert reader.description(reader.indexed_image(2)).factors.what.shape[0] == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (IndexSettings(rank=4), "rank 3, not 4"),
        (IndexSettings(descriptors=("what",)), r"descriptors \('what', 'gem'\), not \('what',\)"),
        (IndexSettings(backbone="efficientnet-lite0"), "backbone 'older-net', not 'efficientnet-lite0'"),
    ],
    ids=["rank", "descriptors", "backbone"],
)
def test_a_collection_is_not_mixed(
    small: Path, root: Path, thumbnails: Sequence[Path], settings: IndexSettings, words: str
) -> None:
    """A run that would describe differently is refused by the value that differs, and changes nothing."""
    shutil.copytree(small, root)
    if settings.backbone:
        recipe = json.loads(Layout(root).recipe.read_text())
        Layout(root).recipe.write_text(json.dumps(recipe | {"backbone": "older-net"}))
    before = rows(root)

    with pytest.raises(CollectionMismatch, match=words):
        index_paths(thumbnails, root, settings)

    assert rows(root) == before


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (IndexSettings(rank=0), InvalidRequest, "rank 0 is out of range: give 1 to 64"),
        (IndexSettings(rank=65), InvalidRequest, "rank 65 is out of range"),
        (IndexSettings(batch_size=0), InvalidRequest, "batch size 0 is out of range"),
        (IndexSettings(backbone="resnet-9000"), UnknownName, "backbone 'resnet-9000' is unknown; there are: effic"),
        (IndexSettings(descriptors=("what", "why")), UnknownName, "descriptor 'why' is unknown; there are: what, "),
        (IndexSettings(preset="worst"), UnknownName, "preset 'worst' is unknown; there are: default, thesis"),
        (IndexSettings(device="abacus"), UnknownName, "device 'abacus' is unknown"),
        (IndexSettings(whiteners=Path("nowhere")), WhitenerUnavailable, r"nowhere/.*cells.* is missing"),
        (
            IndexSettings(whiteners=Path("nowhere"), preset="thesis"),
            WhitenerUnavailable,
            r"nowhere/.*what.* is missing",
        ),
    ],
    ids=[
        "rank below",
        "rank above",
        "batch size",
        "backbone",
        "descriptor",
        "preset",
        "device",
        "whiteners",
        "whiteners of a preset",
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_made(
    root: Path, settings: IndexSettings, error: type[WhatwhereError], words: str
) -> None:
    """The error names the value; no directory is left behind."""
    with pytest.raises(error, match=words):
        index_paths([], root, settings)

    assert not root.exists()


def test_a_missing_path_is_refused_before_anything_is_made(
    folder: Path, root: Path, thumbnails: Sequence[Path]
) -> None:
    """The paths that do exist are not indexed either."""
    put(thumbnails[0], folder / "a.png")

    with pytest.raises(InvalidRequest, match="nowhere does not exist"):
        index_paths([folder, folder / "nowhere"], root)

    assert not root.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none_is_an_error(root: Path) -> None:
    """The device asked for is taken, not silently another."""
    with pytest.raises(DeviceUnavailable, match="no CUDA device"):
        index_paths([], root, IndexSettings(device="cuda"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, thumbnails: Sequence[Path]) -> Path:
    """Give a folder of whiteners of 16 dimensions, trained on the five photographs at rank 4."""
    output = tmp_path_factory.mktemp("trained") / "not" / "there" / "yet"
    train_whiteners(thumbnails, output, TrainingSettings(("what", "gem"), dimensions=16, rank=4))
    return output


def test_trained_whiteners_are_found_by_their_names(trained: Path) -> None:
    """One file for each kind of rows, that says what it was made for and from."""
    names = sorted(path.name for path in trained.iterdir())

    assert names == ["efficientnet-lite0.cells.safetensors", "efficientnet-lite0.gem.safetensors"]
    whitener = whitening.load(trained / "efficientnet-lite0.cells.safetensors")
    assert (whitener.key.descriptor, whitener.dimensions) == ("cells", 16)
    assert whitener.trained_on == "5 photographs, rank 4"


def test_whiteners_of_a_folder_take_the_place_of_the_ready_made(small: Path, root: Path, trained: Path) -> None:
    """All vectors are made anew, and later runs go on with these whiteners."""
    shutil.copytree(small, root)

    changed = index_paths([], root, IndexSettings(whiteners=trained))
    after = index_paths([], root)

    entry = Manifest.load(Layout(root).generation(2)).indexes["what"]
    assert entry.whiteners == (whitening.load(trained / "efficientnet-lite0.cells.safetensors").fingerprint,)
    assert entry.dimensions == 16
    assert (changed.published, changed.images, after.published) == (True, 1, False)


def test_a_stored_whitener_that_was_exchanged_is_not_taken(small: Path, root: Path, trained: Path) -> None:
    """A collection whose whitener holds other values than it was stored with is neither searched nor extended."""
    shutil.copytree(small, root)
    entry = Manifest.load(Layout(root).generation(1)).indexes["what"]
    shutil.copyfile(trained / "efficientnet-lite0.cells.safetensors", Layout(root).whitener(entry.whiteners[0]))

    with pytest.raises(CollectionMismatch):
        index_paths([], root)


@pytest.mark.parametrize(
    ("preset", "names"), [("default", {"cells", "r-mac"}), ("thesis", {"what", "what-and-where", "r-mac"})]
)
def test_each_preset_trains_the_whiteners_that_it_needs(
    tmp_path: Path, root: Path, thumbnails: Sequence[Path], preset: str, names: set[str]
) -> None:
    """Each once, however many descriptors share it; a collection of the preset takes them from the folder."""
    settings = TrainingSettings(preset=preset, dimensions=7, rank=3)

    made = train_whiteners(thumbnails[:3], tmp_path / "w", settings)
    index_paths(thumbnails[:1], root, IndexSettings(rank=3, preset=preset, whiteners=tmp_path / "w"))

    assert made.keys() == names
    assert {path.name.split(".")[1] for path in (tmp_path / "w").iterdir()} == names
    with open_collection(root) as reader:
        for index in reader.indexes.values():
            assert [each.fingerprint for each in index.whiteners] == [
                made[rows].fingerprint for rows in find_method(index.descriptor, preset).whiteners
            ]
        assert {name: index.vectors.dimensions for name, index in reader.indexes.items()} == {
            "what": 7,
            "what-and-where": 7,
            "fused": 14,
        }


def test_whiteners_are_fitted_to_the_rows_of_their_names(describer: Describer, described: list[Description]) -> None:
    """To all rows of all descriptions, and keyed to the describer's network."""
    made = fit_whiteners(described, describer, ("cells", "what"), 9)

    for name in ("cells", "what"):
        rows = np.concatenate([training_rows(name, description).numpy() for description in described])
        expected = whitening.fit(rows, describer.whitener_key(name), "", 9)
        assert made[name].fingerprint == expected.fingerprint
        assert made[name].trained_on == "4 photographs, rank 6"


def test_the_whiteners_of_methods_come_once_in_their_order() -> None:
    """What and what-and-where of the default preset share one."""
    methods = [find_method(name) for name in ("gem", "what", "fused", "what-and-where", "gem")]

    assert whiteners_of(methods) == ("gem", "cells", "r-mac")


@pytest.mark.parametrize(("count", "expected"), [(0, []), (4, [0, 1, 2, 3]), (5, [0, 2, 4]), (9, [0, 3, 6])])
def test_photographs_are_chosen_evenly_from_too_many(
    monkeypatch: pytest.MonkeyPatch, count: int, expected: list[int]
) -> None:
    """At most four here, from the first on, at one distance."""
    monkeypatch.setattr("indexer.train.MAX_IMAGES", 4)
    files = [Path(f"{number}.jpg") for number in range(count)]

    chosen = evenly_chosen(files)

    assert [int(path.stem) for path in chosen] == expected


def test_training_leaves_out_what_cannot_be_read(
    folder: Path, tmp_path: Path, thumbnails: Sequence[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """A bad photograph is named in a warning, and so is a set that is too small."""
    (folder / "torn.jpg").write_text("torn")
    reports: list[tuple[int, int]] = []

    with caplog.at_level(logging.WARNING, "indexer.train"):
        made = train_whiteners(
            [folder, *thumbnails[:2]],
            tmp_path / "out",
            TrainingSettings(("gem",)),
            lambda done, total: reports.append((done, total)),
        )

    assert made["gem"].trained_on == "2 photographs, rank 8"
    assert "torn.jpg: not a complete" in caplog.text
    assert "only 2 photographs" in caplog.text
    assert reports[-1] == (3, 3)


def test_training_needs_two_photographs(tmp_path: Path, thumbnails: Sequence[Path]) -> None:
    """One is refused, and nothing is written."""
    with pytest.raises(InvalidRequest, match="1 readable photographs to train whiteners on: give hundreds"):
        train_whiteners(thumbnails[:1], tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_collection_of_version_0_1_0_grows_as_one_of_the_thesis(
    root: Path, tmp_path: Path, thumbnails: Sequence[Path]
) -> None:
    """What that version wrote goes on as the preset that it had, through the whiteners that are stored beside it."""
    settings = IndexSettings(preset="thesis", descriptors=("what", "what-and-where"))
    today = tmp_path / "today.ww"
    for collection in (root, today):
        index_paths(thumbnails[:2], collection, settings)
    as_version_0_1_0_wrote(root)

    unchanged = index_paths(thumbnails[:2], root)
    grown = index_paths(thumbnails, root)
    index_paths(thumbnails, today)

    assert (unchanged.published, grown.published, grown.images) == (False, True, 5)
    assert written(root) == written(today)
    assert rows(root) == rows(today)
    with pytest.raises(CollectionMismatch, match=r"preset 'thesis', not 'default'.* or index into a new directory"):
        index_paths(thumbnails, root, IndexSettings(preset="default"))


# --- the same, however it came about ----------------------------------------------------------------------------


def indexed_in_batches_of(size: int, paths: Sequence[Path], root: Path) -> Path:
    index_paths(paths, root, IndexSettings(batch_size=size, descriptors=("what", "what-and-where", "fused", "r-mac")))
    return root


@pytest.fixture(scope="module")
def in_fives(tmp_path_factory: pytest.TempPathFactory, thumbnails: Sequence[Path]) -> Path:
    """Give a collection of all five photographs, described five at a time."""
    return indexed_in_batches_of(5, thumbnails, tmp_path_factory.mktemp("batches") / "fives.ww")


def test_the_same_run_writes_the_same_bytes(in_fives: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """Shards and index files of two runs are equal."""
    indexed_in_batches_of(5, thumbnails, root)

    assert written(root) == written(in_fives)
    assert rows(root) == rows(in_fives)


def test_the_size_of_batches_does_not_show(in_fives: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """One at a time or five at a time: the same ids, and vectors that differ by rounding at most."""
    indexed_in_batches_of(1, thumbnails, root)

    assert rows(root) == rows(in_fives)
    with open_collection(root) as ones, open_collection(in_fives) as fives:
        for name in ("what", "what-and-where", "fused", "r-mac"):
            for image_id in (1, 2, 3, 4, 5):
                vectors = [reader.index(name).vectors.vector(image_id) for reader in (ones, fives)]
                assert np.dot(*vectors) >= 0.9999


def test_the_number_of_threads_does_not_show(in_fives: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """One decoding thread gives the bytes of many."""
    descriptors = ("what", "what-and-where", "fused", "r-mac")

    index_paths(thumbnails, root, IndexSettings(batch_size=5, workers=1, descriptors=descriptors))

    assert written(root) == written(in_fives)


def test_a_shard_holds_so_many_sources(root: Path, thumbnails: Sequence[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are kept as they fill, and the rest at the end."""
    monkeypatch.setattr(indexer.pipeline, "SHARD_SOURCES", 2)

    index_paths(thumbnails, root, IndexSettings(batch_size=1))

    with Catalog.open(Layout(root).catalog) as catalog:
        assert [shard.image_count for shard in catalog.shards()] == [2, 2, 1]


class Stopped(Exception):
    """The run was stopped from outside."""


def stop_at(done: int) -> Callable[[Progress], None]:
    """Return a report that stops the run once so many sources are done."""

    def report(progress: Progress) -> None:
        if progress.done >= done:
            raise Stopped

    return report


@pytest.mark.parametrize("first", ["photograph", "torn", "missing"])
@pytest.mark.parametrize("chunks", [0, 1])
def test_a_run_that_was_stopped_is_continued(
    folder: Path,
    tmp_path: Path,
    thumbnails: Sequence[Path],
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    chunks: int,
) -> None:
    """Finished chunks are kept, and the next run ends as if the first had not been stopped, bad images or not."""
    monkeypatch.setattr(indexer.pipeline, "SHARD_SOURCES", 4)
    settings = IndexSettings(batch_size=2)
    for path in thumbnails:
        put(path, folder / path.name)
    if first == "torn":
        (folder / "a.png").write_text("torn")
    elif first == "missing":
        (folder / "a.png").symlink_to("nowhere")
    index_paths([folder], tmp_path / "uninterrupted.ww", settings)

    with pytest.raises(Stopped):
        index_paths([folder], tmp_path / "stopped.ww", settings, stop_at(4 * chunks + 1))
    kept = len(rows(tmp_path / "stopped.ww"))
    index_paths([folder], tmp_path / "stopped.ww", settings)

    assert kept == 4 * chunks
    assert rows(tmp_path / "stopped.ww") == rows(tmp_path / "uninterrupted.ww")
    assert written(tmp_path / "stopped.ww") == written(tmp_path / "uninterrupted.ww")
