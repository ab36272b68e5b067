"""Descriptions on disk: made once for a photograph and its settings, whole or not at all, and named when torn."""

import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from whatwhere.indexer.backbones.backbone import Backbone
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box
from whatwhere.indexer.collection import shards
from whatwhere.indexer.errors import BenchmarkUnreadable, CollectionCorrupt
from whatwhere.indexer.features.describe import POOLED, Describer
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.images.decode import decode_image
from whatwhere.service.evaluation.retrieval import features
from whatwhere.service.evaluation.retrieval.benchmark import BenchmarkQuery, PixelBox
from whatwhere.service.evaluation.retrieval.features import BATCH, FeatureCache, Picture, read_description, region_of

LEFT_HALF = Box(0, 0, 0.5, 1)


@dataclass(frozen=True)
class Spec:
    name: str = "blocks"
    layer: str = "means"


@dataclass(frozen=True)
class Blocks:
    """A network whose cells hold the mean colour of 32 x 32 pixels, and what it lacks to white."""

    spec: Spec = Spec()
    weights_sha256: str = "1" * 64
    precision: str = "float32"

    def threads_beside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def activations(self, images: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        return [self._cells(torch.from_numpy(image.copy()).float() / 255) for image in images]

    def _cells(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[0] // 32, pixels.shape[1] // 32
        means = pixels.reshape(height, 32, width, 32, 3).mean(dim=(1, 3))
        return torch.cat([means, 1 - means], dim=2)


class CountingDescriber(Describer):
    """A describer that counts what it describes."""

    count = 0

    def describe(self, images: Sequence[NDArray[np.uint8]], crop: Box = WHOLE_IMAGE) -> list[Description]:
        self.count += len(images)
        return super().describe(images, crop)


def counting(blocks: Blocks | None = None, rank: int = 2, pooled: Sequence[str] = tuple(POOLED)) -> CountingDescriber:
    return CountingDescriber(cast(Backbone, blocks or Blocks()), rank, pooled)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    """Give an empty cache, in a folder that does not exist yet."""
    return FeatureCache(tmp_path / "new" / "cache", counting())


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Give twenty different small pictures: two batches and a half."""
    random = np.random.default_rng(3)
    paths = [tmp_path / f"{number:02}.png" for number in range(20)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(path)
    return paths


def described(cache: FeatureCache, *pictures: Path | Picture) -> int:
    """Return how many descriptions a run made."""
    describer = cast(CountingDescriber, cache.describer)
    before = describer.count
    cache.describe([picture if isinstance(picture, Picture) else Picture(picture) for picture in pictures])
    return describer.count - before


def assert_equal(one: Description, other: Description) -> None:
    for name, array in vars(one.factors).items():
        np.testing.assert_array_equal(array, getattr(other.factors, name))
    assert one.pooled.keys() == other.pooled.keys()
    for name, rows in one.pooled.items():
        np.testing.assert_array_equal(rows, other.pooled[name])


# --- what is kept -------------------------------------------------------------------------------------------------


def test_what_is_kept_is_what_the_describer_gives(cache: FeatureCache, files: list[Path]) -> None:
    """Factors and every pooled row, bit for bit, under the picture that they are of."""
    pixels = [decode_image(path.read_bytes(), path.name).pixels for path in files[:3]]
    expected = counting().describe(pixels)

    places = cache.describe([Picture(path) for path in files[:3]])

    for path, description in zip(files[:3], expected, strict=True):
        assert_equal(read_description(places[Picture(path)]), description)


def test_of_a_crop_only_what_is_pooled_differs(cache: FeatureCache, files: list[Path]) -> None:
    """Crops in one batch do not mix; the factors are those of the whole picture."""
    asked = [Picture(files[0]), Picture(files[0], LEFT_HALF), Picture(files[1], LEFT_HALF)]
    pixels = [decode_image(path.read_bytes(), path.name).pixels for path in files[:2]]
    (whole,), halves = counting().describe(pixels[:1]), counting().describe(pixels, LEFT_HALF)

    places = cache.describe(asked)

    for picture, expected in zip(asked, (whole, *halves), strict=True):
        assert_equal(read_description(places[picture]), expected)
    assert not np.array_equal(whole.pooled["mac"], halves[0].pooled["mac"])


# --- what is described again, and what is not ---------------------------------------------------------------------


def test_a_second_run_describes_nothing(
    cache: FeatureCache, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not even decode, and finds everything where the first one put it."""
    pictures = [Picture(path) for path in files]

    first = cache.describe(pictures)
    monkeypatch.setattr(features, "decode_image", lambda _content, name: pytest.fail(f"{name} was decoded"))
    again = described(cache, *pictures)

    assert cast(CountingDescriber, cache.describer).count == len(files)
    assert again == 0
    assert cache.describe(pictures) == first
    assert sorted(cache.folder.iterdir()) == sorted(first.values())


def test_a_copy_under_another_name_is_known(cache: FeatureCache, files: list[Path], tmp_path: Path) -> None:
    """The content decides, not the name."""
    described(cache, files[0])
    copy = shutil.copy(files[0], tmp_path / "copy.jpg")

    again = described(cache, copy)

    assert again == 0


def test_copies_in_one_run_are_described_once(cache: FeatureCache, files: list[Path]) -> None:
    """Though they are read before the first of them has been described, in its batch and in later ones."""
    for path in files[1:]:
        shutil.copy(files[0], path)

    assert described(cache, *files) == 1


def test_a_changed_byte_is_another_picture(cache: FeatureCache, files: list[Path]) -> None:
    """Even one behind the last pixel."""
    described(cache, files[0])
    files[0].write_bytes(files[0].read_bytes() + b"\0")

    again = described(cache, files[0])

    assert again == 1


def test_each_crop_is_kept_for_itself(cache: FeatureCache, files: list[Path]) -> None:
    """Another box, another description."""
    described(cache, files[0])

    assert described(cache, Picture(files[0], LEFT_HALF)) == 1
    assert described(cache, Picture(files[0], Box(0, 0, 0.5, 0.75))) == 1
    assert described(cache, files[0], Picture(files[0], LEFT_HALF)) == 0


@pytest.mark.parametrize(
    "other",
    [
        counting(Blocks(spec=Spec(name="squares"))),
        counting(Blocks(spec=Spec(layer="maxima"))),
        counting(Blocks(weights_sha256="2" * 64)),
        counting(Blocks(precision="bfloat16")),
        counting(rank=3),
        counting(pooled=("mac", "cells")),
    ],
    ids=["network", "layer", "weights", "precision", "rank", "pooled"],
)
def test_another_setting_is_another_description(
    cache: FeatureCache, files: list[Path], other: CountingDescriber
) -> None:
    """Both are kept, each for its own runs."""
    changed = FeatureCache(cache.folder, other)
    described(cache, files[0])

    assert described(changed, files[0]) == 1
    assert described(changed, files[0]) == described(cache, files[0]) == 0


def test_another_form_of_descriptions_is_described_anew(
    cache: FeatureCache, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older whatwhere kept is not taken for what this one makes."""
    described(cache, files[0])
    monkeypatch.setattr(features, "FORMAT_VERSION", features.FORMAT_VERSION + 1)

    again = described(cache, files[0])

    assert again == 1


# --- interrupted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_what_was_described_before_an_interruption_is_not_lost(
    cache: FeatureCache, files: list[Path], stop: type[BaseException]
) -> None:
    """Stopped after the first batch, the second run describes the rest and nothing else."""

    def interrupt(_done: int, _total: int) -> None:
        raise stop

    with pytest.raises(stop):
        cache.describe([Picture(path) for path in files], interrupt)
    kept = len(list(cache.folder.iterdir()))

    assert kept == BATCH
    assert described(cache, *files) == len(files) - BATCH


def test_a_file_that_is_half_written_does_not_count(
    cache: FeatureCache, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of writing, the next run describes that picture again."""

    def half(_arrays: object, path: Path, _metadata: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "save_file", half)
    with pytest.raises(KeyboardInterrupt):
        cache.describe([Picture(files[0])])
    monkeypatch.undo()

    assert described(cache, files[0]) == 1
    read_description(cache.describe([Picture(files[0])])[Picture(files[0])])


def test_progress_counts_pictures_each_once(cache: FeatureCache, files: list[Path]) -> None:
    """After each batch, also of what was kept before: how many are there, of how many."""
    told: list[tuple[int, int]] = []
    described(cache, *files[:5])

    cache.describe([Picture(path) for path in (*files, *files)], lambda done, total: told.append((done, total)))

    assert told == [(8, 20), (16, 20), (20, 20)]


# --- what cannot be read ------------------------------------------------------------------------------------------


def spoil(path: Path, how: str) -> Path:
    content = path.read_bytes()
    path.unlink()
    match how:
        case "torn":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("how", ["missing", "torn", "empty", "folder", "pipe"])
def test_a_picture_that_cannot_be_read_is_named(cache: FeatureCache, files: list[Path], how: str) -> None:
    """A score without it would be wrong."""
    spoil(files[3], how)

    with pytest.raises(BenchmarkUnreadable, match=r"^03\.png cannot be described \(.*fetch the file again"):
        cache.describe([Picture(path) for path in files])


@pytest.mark.parametrize("keep", [0, 7, 200])
def test_a_torn_description_names_its_file_and_what_to_do(cache: FeatureCache, files: list[Path], keep: int) -> None:
    """Deleted, as the message says, it is made again."""
    (place,) = cache.describe([Picture(files[0])]).values()
    place.write_bytes(place.read_bytes()[:keep])

    with pytest.raises(CollectionCorrupt) as caught:
        read_description(place)

    assert str(caught.value) == f"{place} is corrupt: delete it; the next run describes its picture again"
    place.unlink()
    assert described(cache, files[0]) == 1
    read_description(place)


# --- the box of a query -------------------------------------------------------------------------------------------


def query(box: PixelBox | None) -> BenchmarkQuery:
    return BenchmarkQuery("louvre_1", "picture", "louvre", box, {})


def test_a_box_is_in_fractions_of_the_upright_picture(tmp_path: Path) -> None:
    """Stored lying, 80 x 40 pixels, with the note to turn it: upright it has 40 x 80."""
    picture = Image.new("RGB", (80, 40))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "lying.jpg", exif=exif)

    region = region_of(query(PixelBox(10, 40, 30, 80)), tmp_path / "lying.jpg")

    assert region == Box(0.25, 0.5, 0.75, 1)


def test_a_query_without_a_box_has_no_region(tmp_path: Path) -> None:
    """Its picture is not even opened."""
    assert region_of(query(None), tmp_path / "nowhere.jpg") is None


def test_a_box_that_leaves_the_picture_names_both(files: list[Path]) -> None:
    """Pictures that were scaled down do not fit their boxes."""
    with pytest.raises(BenchmarkUnreadable, match=r"louvre_1: the box .* exceeds picture, which has 8 x 6 pixels"):
        region_of(query(PixelBox(0, 0, 16, 6)), files[0])


@pytest.mark.timeout(20)
@pytest.mark.parametrize("how", ["missing", "empty", "folder", "pipe"])
def test_a_query_s_picture_that_cannot_be_read_is_named(files: list[Path], how: str) -> None:
    """Before anything is described."""
    spoil(files[3], how)

    with pytest.raises(BenchmarkUnreadable, match=r"^03\.png cannot be described"):
        region_of(query(PixelBox(0, 0, 8, 6)), files[3])
