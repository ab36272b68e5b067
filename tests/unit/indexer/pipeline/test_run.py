"""From files to a published collection: small real photographs, the real network."""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import sklearn.datasets
import torch
from PIL import ExifTags, Image

import whatwhere.indexer.pipeline.run
from tests.conftest import rows, written
from tests.generations import publish_collection
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import ImageRecord
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.errors import (
    CollectionCorrupt,
    CollectionMismatch,
    CollectionNotFound,
    DeviceUnavailable,
    InvalidRequest,
    UnknownName,
    WhatwhereError,
    WhitenerUnavailable,
)
from whatwhere.indexer.features import whitening
from whatwhere.indexer.features.describe import Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.descriptors import find_descriptor, training_rows
from whatwhere.indexer.features.whitener_fitting import fit
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.indexer.pipeline.run import describe_again, index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings, Progress
from whatwhere.indexer.pipeline.train_whiteners import (
    TrainingSettings,
    evenly_chosen,
    fit_whiteners,
    train_whiteners,
    whiteners_of,
)

FIRST_RELEASE = Path(__file__).parents[3] / "fixtures" / "first_release" / "collection.ww"
SCIKIT_IMAGE = Path(skimage.data.__file__).parent
PHOTOGRAPHS = (
    SCIKIT_IMAGE / "astronaut.png",
    SCIKIT_IMAGE / "chelsea.png",
    SCIKIT_IMAGE / "coffee.png",
    SCIKIT_IMAGE / "rocket.jpg",
    Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg",
)


pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.takes(50)]


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


def skipped(root: Path) -> dict[str, str]:
    """Return the kinds of what was passed over, by the last part of its path."""
    with Catalog.open(Layout(root).catalog) as catalog:
        return {found.uri.rstrip("/").rpartition("/")[2]: found.kind for found in catalog.skipped()}


def test_what_is_passed_over_is_recorded_until_the_next_run(
    folder: Path, root: Path, thumbnails: Sequence[Path]
) -> None:
    """By kind in the summary, by name in the catalog; what is gone or was taken is not listed any more."""
    put(thumbnails[0], folder / "a.png")
    put(thumbnails[1], folder / ".b.png")
    for name in ("clip.mp4", "old.mp4", "notes"):
        (folder / name).touch()

    before = index_paths([folder], root)
    (folder / "old.mp4").unlink()
    after = index_paths([folder, folder / ".b.png"], root)

    assert (before.skipped, before.ignored) == ({".mp4": 2, "hidden file": 1, "without extension": 1}, 4)
    assert (after.skipped, after.progress.described) == ({".mp4": 1, "without extension": 1}, 1)
    assert skipped(root) == {"clip.mp4": ".mp4", "notes": "without extension"}


def test_an_image_that_is_left_out_now_stays(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """Also with prune: it is there. A failure that is left out is forgotten."""
    put(thumbnails[0], folder / "a.png")
    put(thumbnails[1], folder / "drafts.png")
    (folder / "torn.png").write_bytes(thumbnails[2].read_bytes()[:100])
    index_paths([folder], root)
    (folder / "a.png").unlink()

    summary = index_paths([folder], root, IndexSettings(exclude=("drafts.*", "torn.*", "a.png"), prune=True))

    assert summary.left_out == ((folder / "drafts.png").as_uri(),)
    assert summary.vanished == ((folder / "a.png").as_uri(),)
    assert {name: image.state for name, image in images(root).items()} == {"drafts.png": "indexed"}
    assert summary.failed_images == 0


def test_a_copy_of_a_failed_file_fails_too(
    folder: Path, root: Path, thumbnails: Sequence[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same chunk, in a later one and in a later run: never as the duplicate of an image."""
    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "SHARD_SOURCES", 2)
    torn = thumbnails[0].read_bytes()[:100]
    for name in ("a.png", "b.png", "d.png"):
        (folder / name).write_bytes(torn)
    put(thumbnails[1], folder / "c.png")

    first = index_paths([folder], root, IndexSettings(batch_size=1))
    (folder / "e.png").write_bytes(torn)
    (folder / "f.png").write_bytes(b"")
    second = index_paths([folder], root)

    assert counts(first.progress) == {"total": 4, "failed": 3, "described": 1}
    assert counts(second.progress) == {"total": 6, "failed": 2, "unchanged": 4}
    assert sum(second.failures.values()) == 2
    assert second.failed_images == 2


@pytest.mark.parametrize("reason", ["torn", "closed"])
@pytest.mark.usefixtures("mortal")
def test_a_file_that_became_readable_leaves_no_trace_of_its_failure(
    folder: Path, root: Path, thumbnails: Sequence[Path], reason: str
) -> None:
    """Neither failed nor removed images remain; a twin that still fails is still a failure."""
    path = put(thumbnails[0], folder / "a.png")
    whole = path.read_bytes()
    if reason == "torn":
        path.write_bytes(whole[:100])
    else:
        path.chmod(0)
    assert index_paths([folder], root).failed_images == 1

    path.chmod(0o600)
    path.write_bytes(whole)
    summary = index_paths([folder], root, IndexSettings(retry_failed=True))

    assert (summary.progress.described, summary.failed_images) == (1, 0)
    with Catalog.open(Layout(root).catalog) as catalog:
        assert catalog.counts() == {"indexed": 1, "failed": 0, "removed": 0}
        assert catalog.check() == []


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


def test_a_file_that_was_moved_is_recognized(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
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
    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "SHARD_SOURCES", 1)
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


def test_a_truncated_image_is_indexed_and_listed_so(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """The message says how much is missing, and a later run keeps it."""
    with Image.open(thumbnails[0]) as photograph:
        large = photograph.convert("RGB").resize((640, 480))
    large.save(folder / "whole.jpg", quality=90)
    content = (folder / "whole.jpg").read_bytes()
    (folder / "no-end.jpg").write_bytes(content[:-2])
    (folder / "cut.jpg").write_bytes(content[: len(content) * 95 // 100])

    for truncated in (2, 0):
        assert index_paths([folder], root).truncated == truncated

        listed = images(root)
        assert {image.state for image in listed.values()} == {"indexed"}
        assert listed["whole.jpg"].failure_message is None
        assert listed["no-end.jpg"].failure_message == "truncated: its end is missing"
        assert re.fullmatch(r"truncated: \d\.\d% of its rows are missing", listed["cut.jpg"].failure_message or "")


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
    (folder / "a.png").symlink_to(folder.parent / "target")
    index_paths([folder], root)
    put(thumbnails[0], folder.parent / "target")

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


# --- metadata ---------------------------------------------------------------------------------------------------


def metadata(root: Path) -> dict[str, dict[str, object]]:
    """Return what is known of each image by the name of each of its files."""
    return {name: dict(image.user_metadata) for name, image in images(root).items()}


def say(path: Path, values: object) -> Path:
    """Write a sidecar, or a table of JSON lines."""
    lines = values if isinstance(values, list) else [values]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def photograph(path: Path, thumbnail: Path, taken: str, latitude: float = 50.0) -> Path:
    """Write a photograph with a time, a camera and a position."""
    block = Image.Exif()
    block[ExifTags.Base.Model] = "Camera"
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    block.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (latitude, 0.0, 0.0), 3: "E", 4: (7.0, 0.0, 0.0)})
    with Image.open(thumbnail) as picture:
        picture.convert("RGB").save(path, "JPEG", exif=block)
    return path


def test_sidecars_are_taken_along(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """Each for the picture that it lies beside; they are not ignored files."""
    for name in ("a.png", "b.png"):
        put(thumbnails[ord(name[0]) - ord("a")], folder / name)
    say(folder / "a.png.json", {"label": "boat", "year": 1999})

    summary = index_paths([folder], root)

    assert metadata(root) == {"a.png": {"label": "boat", "year": 1999}, "b.png": {}}
    assert (summary.metadata_changed, summary.ignored) == (1, 0)


def test_a_sidecar_that_changed_needs_no_picture(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """What it says now is known after the next run, what it said before is not, and nothing is published for that."""
    path = put(thumbnails[0], folder / "a.png")
    sidecar = say(folder / "a.png.json", {"label": "boat", "year": 1999})
    index_paths([folder], root)
    status = path.stat()
    path.write_bytes(bytes(status.st_size))  # a picture that was read now would be torn
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    say(sidecar, {"label": "ship"})

    changed = index_paths([folder], root)
    after = metadata(root)["a.png"]
    again = index_paths([folder], root)
    sidecar.unlink()
    removed = index_paths([folder], root)

    assert after == {"label": "ship"}
    assert metadata(root)["a.png"] == {}
    assert [run.metadata_changed for run in (changed, again, removed)] == [1, 0, 1]
    assert not any(run.published or run.progress.failed for run in (changed, again, removed))


def test_a_torn_sidecar_stops_nothing_and_takes_nothing_away(
    folder: Path, root: Path, thumbnails: Sequence[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The picture is indexed, the sidecar is named and counted, and what it said before it was torn is kept."""
    put(thumbnails[0], folder / "a.png")
    sidecar = say(folder / "a.png.json", {"label": "boat"})
    index_paths([folder], root)
    put(thumbnails[1], folder / "b.png")
    for path in (sidecar, folder / "b.png.json"):
        path.write_text('{"label": "sh')

    with caplog.at_level(logging.WARNING, "whatwhere.indexer.pipeline.annotate"):
        summary = index_paths([folder], root)

    assert (summary.unreadable_sidecars, summary.metadata_changed, summary.images) == (2, 0, 2)
    assert metadata(root) == {"a.png": {"label": "boat"}, "b.png": {}}
    assert "b.png.json: not JSON" in caplog.text


def test_a_table_says_what_is_known_of_files(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """Also of files that were indexed before; a row replaces what an earlier table said of its file, and no other."""
    for name, thumbnail in zip(("a.png", "b.png", "c.png"), thumbnails, strict=False):
        put(thumbnail, folder / name)
    first = folder.parent / "first.csv"
    first.write_text("path,label,year\nphotographs/a.png,boat,1999\nphotographs/b.png,car,2000\nnowhere.png,x,1\n")
    second = say(folder / "second.jsonl", [{"path": "a.png", "year": 2001}, {"path": (folder / "c.png").as_uri()}])

    before = index_paths([folder], root, IndexSettings(metadata=first))
    after = index_paths([folder], root, IndexSettings(metadata=second))
    again = index_paths([folder], root, IndexSettings(metadata=second))

    assert metadata(root) == {"a.png": {"year": 2001}, "b.png": {"label": "car", "year": 2000}, "c.png": {}}
    assert [(run.metadata_changed, run.unmatched_rows) for run in (before, after, again)] == [(2, 1), (1, 0), (0, 0)]
    assert before.unmatched == ("nowhere.png",)
    assert [run.published for run in (before, after, again)] == [True, False, False]


def test_a_table_is_known_better_than_a_sidecar_and_that_better_than_exif(
    folder: Path, root: Path, thumbnails: Sequence[Path]
) -> None:
    """Name by name: what one does not say, the next one does."""
    photograph(folder / "a.jpg", thumbnails[0], "2001:01:01 00:00:00")
    say(folder / "a.jpg.json", {"taken_time": "2002-01-01", "label": "boat", "rating": 5})
    table = say(folder / "table.jsonl", {"path": "a.jpg", "label": "ship"})

    index_paths([folder], root, IndexSettings(metadata=table, exif=True))

    assert metadata(root)["a.jpg"] == {
        "taken_time": "2002-01-01",
        "label": "ship",
        "rating": 5,
        "camera_model": "Camera",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [("path,year\na.png,1\nb.png", "table.csv, line 3: 1 cells"), (None, "table.csv cannot be read")],
    ids=["torn", "absent"],
)
def test_a_torn_table_is_refused_before_anything_is_made(
    folder: Path, root: Path, thumbnails: Sequence[Path], text: str | None, words: str
) -> None:
    """Rather than to index with half of it."""
    put(thumbnails[0], folder / "a.png")
    if text is not None:
        (folder / "table.csv").write_text(text)

    with pytest.raises(InvalidRequest, match=words):
        index_paths([folder], root, IndexSettings(metadata=folder / "table.csv"))

    assert not root.exists()


CAMERA = {"camera_model": "Camera", "taken_time": "2001-02-03T04:05:06"}
POSITION = {"latitude": 50.0, "longitude": 7.0}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (IndexSettings(), {}),
        (IndexSettings(exif=True), CAMERA),
        (IndexSettings(exif_gps=True), CAMERA | POSITION),
    ],
    ids=["not asked for", "exif", "gps"],
)
def test_exif_is_taken_along_when_asked_for(
    folder: Path, root: Path, thumbnails: Sequence[Path], settings: IndexSettings, expected: dict[str, object]
) -> None:
    """And where a picture was taken only when that is asked for."""
    photograph(folder / "a.jpg", thumbnails[0], "2001:02:03 04:05:06")

    index_paths([folder], root, settings)

    assert metadata(root)["a.jpg"] == expected


def test_exif_of_what_is_indexed_already_is_taken_along_when_files_are_read(
    folder: Path, root: Path, thumbnails: Sequence[Path]
) -> None:
    """Which `checksum` makes a run do; without it no file is opened."""
    photograph(folder / "a.jpg", thumbnails[0], "2001:02:03 04:05:06")
    index_paths([folder], root)

    index_paths([folder], root, IndexSettings(exif=True))
    quick = metadata(root)["a.jpg"]
    index_paths([folder], root, IndexSettings(exif=True, checksum=True))

    assert quick == {}
    assert metadata(root)["a.jpg"] == CAMERA


def test_exif_goes_with_the_content_that_it_stood_in(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """A file that holds another photograph now has not been taken when the old one was; a touched one has."""
    path = photograph(folder / "a.jpg", thumbnails[0], "2001:02:03 04:05:06")
    index_paths([folder], root, IndexSettings(exif=True))
    os.utime(path, ns=(1, 1))
    index_paths([folder], root)
    touched = metadata(root)["a.jpg"]
    photograph(path, thumbnails[1], "2020:01:01 00:00:00")

    index_paths([folder], root)

    assert touched == CAMERA
    assert metadata(root)["a.jpg"] == {}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's own word
def test_torn_exif_stops_nothing(folder: Path, root: Path, thumbnails: Sequence[Path]) -> None:
    """The picture is fine."""
    path = photograph(folder / "a.jpg", thumbnails[0], "2001:02:03 04:05:06")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"MM\0*\0\0\0\x08", b"MM\0*\xff\xff\xff\xff", 1))

    summary = index_paths([folder], root, IndexSettings(exif_gps=True))

    assert path.read_bytes() != content
    assert counts(summary.progress) == {"total": 1, "described": 1}
    assert metadata(root)["a.jpg"] == {}


# --- what is gone -----------------------------------------------------------------------------------------------


@pytest.fixture
def album(folder: Path, root: Path, thumbnails: Sequence[Path]) -> Path:
    """Give a folder with two pictures, one in it and one in a folder of its own, that are indexed."""
    (folder / "deep").mkdir()
    put(thumbnails[0], folder / "a.png")
    put(thumbnails[1], folder / "deep" / "b.png")
    index_paths([folder], root)
    return folder


def test_what_vanished_is_reported_and_kept(album: Path, root: Path) -> None:
    """A folder that is not mounted today does not empty the collection."""
    shutil.rmtree(album / "deep")

    summary = index_paths([album], root)

    assert summary.vanished == ((album / "deep" / "b.png").as_uri(),)
    assert (summary.pruned, summary.images, summary.published) == (False, 2, False)
    assert images(root)["b.png"].state == "indexed"


def test_what_vanished_is_forgotten_when_asked_for(album: Path, root: Path) -> None:
    """The next generation is without it, and it is not reported again."""
    (album / "deep" / "b.png").unlink()

    summary = index_paths([album], root, IndexSettings(prune=True))
    after = index_paths([album], root, IndexSettings(prune=True))

    assert summary.vanished == ((album / "deep" / "b.png").as_uri(),)
    assert (summary.pruned, summary.images, summary.published) == (True, 1, True)
    assert (after.vanished, after.pruned, after.published) == ((), False, False)
    with open_collection(root) as reader:
        assert reader.ids.tolist() == [1]


def test_what_was_forgotten_comes_back_without_being_described_again(
    album: Path, root: Path, thumbnails: Sequence[Path]
) -> None:
    """Its id and its shard are still there."""
    (album / "deep" / "b.png").unlink()
    index_paths([album], root, IndexSettings(prune=True))
    put(thumbnails[1], album / "elsewhere.png")

    summary = index_paths([album], root)

    assert (summary.progress.described, summary.images, images(root)["elsewhere.png"].id) == (0, 2, 2)


def test_only_what_is_below_the_given_paths_is_forgotten(album: Path, root: Path) -> None:
    """A folder whose name only begins the same is another one."""
    (album / "a.png").unlink()
    (album / "deep" / "b.png").unlink()
    (album / "dee").mkdir()

    named = index_paths([album / "dee", album / "deep"], root, IndexSettings(prune=True))

    assert named.vanished == ((album / "deep" / "b.png").as_uri(),)
    assert named.images == 1


def test_the_old_place_of_a_file_that_was_moved_has_vanished(album: Path, root: Path) -> None:
    """The image stays under its id, and keeps only the new place when the old one is forgotten."""
    (album / "a.png").rename(album / "deep" / "moved.png")

    reported = index_paths([album], root)
    pruned = index_paths([album], root, IndexSettings(prune=True))

    assert reported.vanished == pruned.vanished == ((album / "a.png").as_uri(),)
    assert (reported.progress.described, pruned.published, pruned.images) == (0, False, 2)
    assert images(root)["moved.png"].uris == ((album / "deep" / "moved.png").as_uri(),)
    assert images(root)["moved.png"].id == 1


@pytest.mark.usefixtures("mortal")
def test_files_of_a_folder_that_cannot_be_listed_have_not_vanished(album: Path, root: Path) -> None:
    """Nothing of it is forgotten, also when files are gone from it; the rest of the paths is pruned."""
    (album / "a.png").unlink()
    (album / "deep" / "b.png").unlink()
    (album / "deep").chmod(0o100)  # where the file system would still say of a name that there is none

    summary = index_paths([album], root, IndexSettings(prune=True))
    (album / "deep").chmod(0o700)

    assert summary.unlisted == ((album / "deep").as_uri() + "/",)
    assert summary.vanished == ((album / "a.png").as_uri(),)
    assert images(root)["b.png"].state == "indexed"


def test_a_file_that_was_named_once_has_not_vanished_from_its_folder(album: Path, root: Path) -> None:
    """The folder's search passes it over for its name, and it is there."""
    index_paths([put(album / "a.png", album / "a.dat")], root)

    assert index_paths([album], root, IndexSettings(prune=True)).vanished == ()


def test_metadata_goes_with_the_place_that_it_was_said_of(album: Path, root: Path) -> None:
    """What the sidecar of a forgotten place said is forgotten with it."""
    put(album / "a.png", album / "copy.png")
    say(album / "a.png.json", {"label": "boat"})
    say(album / "copy.png.json", {"rating": 5})
    index_paths([album], root)
    before = metadata(root)["copy.png"]
    (album / "a.png").unlink()

    index_paths([album], root, IndexSettings(prune=True))

    assert before == {"label": "boat", "rating": 5}
    assert metadata(root)["copy.png"] == {"rating": 5}


# --- again ------------------------------------------------------------------------------------------------------


def test_exactly_the_files_of_a_lost_shard_are_described_again(album: Path, root: Path) -> None:
    """Under their ids; what else lies in the folders, and what vanished from them, stays as it is."""
    put(album / "a.png", album / "new.png").write_bytes((album / "deep" / "b.png").read_bytes() + b"x")
    with open_for_writing(root) as writer:
        (shard,) = writer.catalog.shards()
        lost = writer.catalog.lose_shard(shard.file_name)

    summary = describe_again(root, lost)

    assert sorted(lost) == [(album / "a.png").as_uri(), (album / "deep" / "b.png").as_uri()]
    assert counts(summary.progress) == {"total": 2, "described": 2}
    assert {name: (image.id, image.state) for name, image in images(root).items()} == {
        "a.png": (1, "indexed"),
        "b.png": (2, "indexed"),
    }
    with open_collection(root) as reader:
        assert reader.description(reader.indexed_image(2)).factors.what.shape[0] == 8


def test_a_file_of_a_lost_shard_that_is_gone_stays_lost(album: Path, root: Path) -> None:
    """It is counted as failed, and keeps its reason and its metadata."""
    say(album / "a.png.json", {"label": "boat"})
    index_paths([album], root)
    with open_for_writing(root) as writer:
        lost = writer.catalog.lose_shard(writer.catalog.shards()[0].file_name)
    (album / "a.png").unlink()

    summary = describe_again(root, lost)

    assert counts(summary.progress) == {"total": 2, "described": 1, "failed": 1}
    assert (images(root)["a.png"].state, images(root)["a.png"].failure_reason) == ("failed", "SHARD_LOST")
    assert metadata(root)["a.png"] == {"label": "boat"}
    assert summary.images == 1


def test_what_the_catalog_holds_is_published(album: Path, root: Path) -> None:
    """Once: without a change the live generation stays."""
    with open_for_writing(root) as writer:
        writer.catalog.remove([1])

    published, again = publish_collection(root), publish_collection(root)

    assert (published.number, published.image_count, again.number) == (2, 1, 2)
    assert album.is_dir()


def test_a_directory_without_a_collection_is_not_published(root: Path) -> None:
    """Nothing is made."""
    with pytest.raises(CollectionNotFound):
        publish_collection(root)

    assert not root.exists()


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
            method, index = find_descriptor(name, preset), reader.index(name)
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
        match="preset 'thesis', not 'default': use the collection's own, or change it for all images with `whatwhere",
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
        Layout(root).current.unlink()  # before the first generation, whose manifest holds the recipe too
        replace(Recipe.load(Layout(root)), backbone="older-net").save(Layout(root))
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

    with pytest.raises(CollectionCorrupt):
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
                made[rows].fingerprint for rows in find_descriptor(index.descriptor, preset).whiteners
            ]
        assert {name: entry.dimensions for name, entry in reader.manifest.indexes.items()} == {
            "what": 7,
            "what-and-where": 7,
            "fused": 14,
        }


def test_whiteners_are_fitted_to_the_rows_of_their_names(describer: Describer, described: list[Description]) -> None:
    """To all rows of all descriptions, and keyed to the describer's network."""
    made = fit_whiteners(described, describer, ("cells", "what"), 9)

    for name in ("cells", "what"):
        rows = np.concatenate([training_rows(name, description).numpy() for description in described])
        expected = fit(rows, describer.whitener_key(name), "", 9)
        assert made[name].fingerprint == expected.fingerprint
        assert made[name].trained_on == "4 photographs, rank 6"


def test_the_whiteners_of_methods_come_once_in_their_order() -> None:
    """What and what-and-where of the default preset share one."""
    methods = [find_descriptor(name) for name in ("gem", "what", "fused", "what-and-where", "gem")]

    assert whiteners_of(methods) == ("gem", "cells", "r-mac")


@pytest.mark.parametrize(("count", "expected"), [(0, []), (4, [0, 1, 2, 3]), (5, [0, 2, 4]), (9, [0, 3, 6])])
def test_photographs_are_chosen_evenly_from_too_many(
    monkeypatch: pytest.MonkeyPatch, count: int, expected: list[int]
) -> None:
    """At most four here, from the first on, at one distance."""
    monkeypatch.setattr("whatwhere.indexer.pipeline.train_whiteners.MAX_IMAGES", 4)
    files = [Path(f"{number}.jpg") for number in range(count)]

    chosen = evenly_chosen(files)

    assert [int(path.stem) for path in chosen] == expected


def test_training_leaves_out_what_cannot_be_read(
    folder: Path, tmp_path: Path, thumbnails: Sequence[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """A bad photograph is named in a warning, and so is a set that is too small."""
    (folder / "torn.jpg").write_text("torn")
    reports: list[tuple[int, int]] = []

    with caplog.at_level(logging.WARNING, "whatwhere.indexer.pipeline.train_whiteners"):
        made = train_whiteners(
            [folder, *thumbnails[:2]],
            tmp_path / "out",
            TrainingSettings(("gem",)),
            lambda done, total: reports.append((done, total)),
        )

    assert made["gem"].trained_on == "2 photographs, rank 8"
    assert "torn.jpg: not an image" in caplog.text
    assert "only 2 photographs" in caplog.text
    assert reports[-1] == (3, 3)


def test_training_needs_two_photographs(tmp_path: Path, thumbnails: Sequence[Path]) -> None:
    """One is refused, and nothing is written."""
    with pytest.raises(InvalidRequest, match="1 readable photographs are too few to train whiteners: give hundreds"):
        train_whiteners(thumbnails[:1], tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_collection_of_version_0_1_0_grows_as_one_of_the_thesis(root: Path, thumbnails: Sequence[Path]) -> None:
    """What that version wrote goes on as the preset that it had, through the whiteners that are stored beside it."""
    shutil.copytree(FIRST_RELEASE, root)
    before = json.loads((root / "generations" / "000001" / "manifest.json").read_text())

    grown = index_paths(thumbnails, root)

    assert grown.images == before["image_count"] + len(thumbnails)
    with open_collection(root) as reader:
        assert (reader.recipe.preset, reader.recipe.rank) == ("thesis", before["recipe"]["rank"])
        index, newest = reader.index("what"), int(reader.ids[-1])
        assert [whitener.fingerprint for whitener in index.whiteners] == [before["indexes"]["what"]["whitener"]]
        expected = find_descriptor("what", "thesis").describe(
            reader.description(reader.indexed_image(newest)), index.whiteners
        )
        np.testing.assert_allclose(index.vectors.vector(newest), expected, atol=1e-6)
    with pytest.raises(CollectionMismatch, match=r"preset 'thesis', not 'default'"):
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
    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "SHARD_SOURCES", 2)

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
    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "SHARD_SOURCES", 4)
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


@pytest.fixture(scope="module")
def annotated(
    tmp_path_factory: pytest.TempPathFactory, thumbnails: Sequence[Path]
) -> tuple[Path, IndexSettings, dict[str, dict[str, object]]]:
    """Give photographs with EXIF, sidecars and a table, how to index them, and what is then known of them."""
    folder = tmp_path_factory.mktemp("annotated") / "photographs"
    folder.mkdir()
    for number, path in enumerate(thumbnails):
        photograph(folder / f"{number}.jpg", path, f"200{number}:01:01 00:00:00")
        say(folder / f"{number}.jpg.json", {"rating": number})
    table = say(folder / "t.jsonl", [{"path": f"{number}.jpg", "label": "x"} for number in (0, 4)])
    expected = {
        f"{number}.jpg": {"taken_time": f"200{number}-01-01T00:00:00", "camera_model": "Camera", "rating": number}
        | ({"label": "x"} if number in (0, 4) else {})
        for number in range(5)
    }
    return folder, IndexSettings(batch_size=2, metadata=table, exif=True, prune=True), expected


@contextmanager
def stopped_before(target: object, name: str, call: int) -> Iterator[None]:
    """Stop the run before a function is called for the time given, counted from 0."""
    original, calls = getattr(target, name), count()

    def stopping(*arguments: object, **more: object) -> object:
        if next(calls) == call:
            raise Stopped
        return original(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, stopping)
        yield


@pytest.mark.parametrize(
    "moment",
    [
        (Catalog, "record_chunk", 1),
        (Catalog, "set_metadata", 0),
        (Catalog, "set_metadata", 2),
        (Catalog, "set_metadata", 3),
        (Catalog, "vanished", 0),
        (Catalog, "forget_sources", 0),
        (whatwhere.indexer.pipeline.run, "publish", 0),
    ],
    ids=[
        "between chunks",
        "after the chunks",
        "among sidecars",
        "before the table",
        "before what is gone is known",
        "before it is forgotten",
        "before the generation",
    ],
)
def test_metadata_of_a_run_that_was_stopped_is_complete_in_the_end(
    root: Path,
    annotated: tuple[Path, IndexSettings, dict[str, dict[str, object]]],
    thumbnails: Sequence[Path],
    monkeypatch: pytest.MonkeyPatch,
    moment: tuple[object, str, int],
) -> None:
    """What was kept in the first run is not read again in the second, and all is known and forgotten all the same."""
    monkeypatch.setattr(whatwhere.indexer.pipeline.run, "SHARD_SOURCES", 2)
    folder, settings, expected = annotated
    gone = photograph(folder / "gone.jpg", thumbnails[0], "1999:01:01 00:00:00")
    index_paths([gone], root)
    gone.unlink()

    with stopped_before(*moment), pytest.raises(Stopped):
        index_paths([folder], root, settings)
    summary = index_paths([folder], root, settings)

    assert metadata(root) == expected
    assert [(image_id, state) for image_id, _, _, state in rows(root)] == [(1, "removed")] + [
        (image_id, "indexed") for image_id in range(2, 7)
    ]
    assert (summary.images, summary.published) == (5, True)
