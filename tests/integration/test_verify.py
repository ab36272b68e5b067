"""Damage done to every file of a collection: found, or harmless; never a wrong answer; mended where that can be."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from tests.made_up import RECIPE, append, fill, take_away
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.errors import CollectionCorrupt, CollectionLocked, CollectionNotFound, WhatwhereError
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.features.descriptors import find_descriptor
from whatwhere.indexer.features.whitening import Whitener
from whatwhere.indexer.maintenance.compact import compact
from whatwhere.indexer.maintenance.rebuild import RebuildSettings, rebuild
from whatwhere.indexer.maintenance.repair import repair
from whatwhere.indexer.maintenance.verify import Part, verify_collection
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service.cli.app import app

FLIPS = 10  # of each file, beside its ends; ten times as many of the catalogue
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a collection with all kinds of files: several shards and segments, something gone, something failed."""
    root = tmp_path_factory.mktemp("verified") / "c.ww"
    fill(root, [1, 2, 3, 4], [5, 6, 7, 8])
    take_away(root, 3)
    fill(root, [9])
    with open_for_writing(root, RECIPE) as writer:
        writer.catalog.set_metadata("file", {"file:///5.jpg": {"label": "boat", "year": 1999}})
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """Give a copy of that collection."""
    return shutil.copytree(template, tmp_path / "c.ww")


def answers(root: Path) -> object:
    """Return all that a server answers from: records, what is kept of them, and what a search by each of them finds."""
    found: list[object] = []
    with open_collection(root) as reader:
        for image_id in reader.ids.tolist():
            image = reader.indexed_image(image_id)
            description = reader.description(image)
            found.append((image, description.factors.where.tobytes(), description.factors.what.tobytes()))
            for name, index in reader.indexes.items():
                vector = vector_of(name, reader.recipe.preset, description, index.whiteners)
                scores, ids = index.vectors.search(vector, 5)
                found.append((name, scores.tolist(), ids.tolist()))
    return found


_vectors: dict[bytes, NDArray[np.float32]] = {}


def vector_of(name: str, preset: str, description: Description, whiteners: Sequence[Whitener]) -> NDArray[np.float32]:
    """Describe what has these bytes once: damage changes little, and what it does change is described again."""
    key = pickle.dumps((name, preset, description, whiteners))
    if key not in _vectors:
        _vectors[key] = find_descriptor(name, preset).describe(description, whiteners)
    return _vectors[key]


def files_of(root: Path) -> list[Path]:
    """Return the files that hold something: not the lock, nor what SQLite makes anew at every start."""
    empty = ("writer.lock", "catalog.db-shm", "catalog.db-wal")
    return sorted(path for path in root.rglob("*") if path.is_file() and path.name not in empty)


def flipped(content: bytes, random: np.random.Generator, count: int) -> Iterator[bytes]:
    """Yield the content with one bit changed: at both ends, and at places in between."""
    places = {0, len(content) - 1, *random.integers(0, len(content), count).tolist()}
    for place in sorted(places):
        changed = bytearray(content)
        changed[place] ^= 1 << int(random.integers(0, 8))
        yield bytes(changed)


def damages(content: bytes, random: np.random.Generator, count: int) -> Iterator[bytes | None]:
    """Yield what may become of a file: a bit changed, cut short, emptied, gone."""
    yield from flipped(content, random, count)
    yield from (content[: len(content) // 2], content[:-1], b"", None)


def test_a_sound_collection_has_no_faults(root: Path) -> None:
    """Looked at in either depth; what a killed run leaves behind is none."""
    (Layout(root).shards / "00000009.safetensors").write_bytes(b"half a shard")
    (Layout(root).segments / ".000009.what.0.faiss.tmp").write_bytes(b"half a segment")
    (Layout(root).generations / "000009.tmp").mkdir()
    with open_for_writing(root, RECIPE) as writer:
        append(writer, 77)

    assert verify_collection(root) == []
    assert verify_collection(root, deep=True) == []


def test_every_damage_is_found_or_harmless(root: Path) -> None:
    """Whatever happens to whichever file: verification names a fault, or nothing has changed for anybody.

    And the answers are the right ones or a named error: no traceback, nothing wrong.
    """
    right = answers(root)
    random = np.random.default_rng(5)
    done = 0
    for path in files_of(root):
        content = path.read_bytes()
        for damaged in damages(content, random, 10 * FLIPS if path.suffix == ".db" else FLIPS):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            faults = verify_collection_or_error(root)
            try:
                answer = answers(root)
            except WhatwhereError:
                answer = None
            path.write_bytes(content)

            place = f"{path.relative_to(root)}, {done}"
            assert answer in (None, right), f"a wrong answer after damage to {place}"
            assert faults or answer == right, f"nothing found after damage to {place}"
            done += 1
    assert done > 350
    assert verify_collection(root, deep=True) == []


def verify_collection_or_error(root: Path) -> object:
    """Return the faults, or the named error that kept verification from looking further."""
    try:
        return verify_collection(root)
    except WhatwhereError as error:
        return error


def test_a_changed_shard_is_found_by_who_reads_it(root: Path) -> None:
    """Also without verification: each image's bytes carry a checksum."""
    path = Layout(root).shards / "00000001.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)

    with pytest.raises(CollectionCorrupt, match=r"00000001\.safetensors .*damaged"):
        answers(root)


def test_a_wrong_vector_with_a_good_checksum_is_found_in_depth(root: Path) -> None:
    """Vectors are derived again from the shards and compared."""
    rebuild(root)
    exchange_vectors(root)

    assert verify_collection(root) == []
    faults = verify_collection(root, deep=True)
    assert {(fault.part, fault.file) for fault in faults} == {(Part.GENERATION, "what")}


def exchange_vectors(root: Path) -> None:
    """Publish a segment in which two images have each other's vectors, as a fault in whatwhere itself would."""
    from dataclasses import replace  # noqa: PLC0415

    from whatwhere.indexer.collection.layout import Current  # noqa: PLC0415
    from whatwhere.indexer.storage.files import sha256_of  # noqa: PLC0415
    from whatwhere.indexer.vectors.segment import Segment  # noqa: PLC0415

    layout = Layout(root)
    manifest = Manifest.live(layout)
    assert manifest is not None
    entry = manifest.indexes["what"]
    (segment,) = entry.segments
    path = layout.segments / segment.file_name
    held = Segment.map(path, segment.byte_count)
    vectors = held.vectors(held.ids)
    Segment.build(held.ids, np.concatenate([vectors[[1, 0]], vectors[2:]])).save(path)
    changed = replace(entry, segments=(replace(segment, sha256=sha256_of(path)),))
    seal = replace(manifest, indexes=manifest.indexes | {"what": changed}).save(layout.generation(manifest.number))
    layout.write_current(Current(manifest.number, seal))


def test_it_is_not_looked_at_while_it_is_written(root: Path) -> None:
    """What is half done would look like a fault; and the other way round."""
    with open_for_writing(root, RECIPE), pytest.raises(CollectionLocked, match=f"process {os.getpid()}"):
        verify_collection(root)


def test_there_must_be_a_collection(tmp_path: Path) -> None:
    """An empty folder is none."""
    with pytest.raises(CollectionNotFound):
        verify_collection(tmp_path)


# --- repair -----------------------------------------------------------------------------------------------------


def unlink(pattern: str) -> Callable[[Path], None]:
    return lambda root: [path.unlink() for path in root.glob(pattern)] and None


def cut(pattern: str) -> Callable[[Path], None]:
    return lambda root: [os.truncate(path, path.stat().st_size // 2) for path in root.glob(pattern)] and None


@pytest.mark.parametrize(
    "damage",
    [
        unlink("collection.json"),
        cut("collection.json"),
        unlink("CURRENT"),
        cut("CURRENT"),
        unlink("generations/000002/manifest.json"),
        cut("generations/*/manifest.json"),
        unlink("generations/000002/removed.npy"),
        unlink("segments/*what*"),
        cut("segments/000001*"),
    ],
    ids=[
        "no recipe",
        "half a recipe",
        "no CURRENT",
        "half a CURRENT",
        "no manifest",
        "half of every manifest",
        "no list of the removed",
        "no segments",
        "half of every segment",
    ],
)
def test_what_can_be_derived_is_mended(root: Path, damage: Callable[[Path], None]) -> None:
    """Afterwards there is no fault, and the same answers."""
    right = answers(root)
    damage(root)

    remaining = repair(root, verify_collection(root))

    assert remaining == []
    assert verify_collection(root, deep=True) == []
    assert_same_answers(answers(root), right)


def assert_same_answers(found: object, right: object) -> None:
    """Compare but for the last bits of a score."""
    assert isinstance(found, list)
    assert isinstance(right, list)
    assert len(found) == len(right)
    for one, other in zip(found, right, strict=True):
        if isinstance(one[1], list):
            assert (one[0], one[2]) == (other[0], other[2])
            np.testing.assert_allclose(one[1], other[1], atol=1e-5)
        else:
            assert one == other


def test_a_lost_whitener_needs_one_from_elsewhere(root: Path, tmp_path: Path) -> None:
    """A folder that has it; without one the collection stays as it is, and the error says what to do."""
    right = answers(root)
    manifest = Manifest.live(Layout(root))
    assert manifest is not None
    path = Layout(root).whitener(manifest.indexes["what"].whiteners[0])
    saved = tmp_path / "saved" / "some-net.what.safetensors"
    saved.parent.mkdir()
    path.rename(saved)
    faults = verify_collection(root)

    with pytest.raises(WhatwhereError, match="no ready-made whitener for what of some-net"):
        repair(root, faults)
    remaining = repair(root, faults, whiteners=saved.parent)

    assert remaining == []
    assert_same_answers(answers(root), right)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of six small pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(3)
    for number in range(6):
        pixels = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def indexed_template(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """Give a collection of the pictures by the real network."""
    root = tmp_path_factory.mktemp("indexed") / "c.ww"
    index_paths([pictures], root, IndexSettings(descriptors=("what", "what-and-where", "fused", "gem")))
    return root


@pytest.fixture
def indexed(indexed_template: Path, tmp_path: Path) -> Path:
    """Give a copy of that collection."""
    return shutil.copytree(indexed_template, tmp_path / "c.ww")


def whatwhere(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout


@pytest.mark.parametrize("damage", [unlink("shards/*"), cut("shards/*")], ids=["gone", "half"])
def test_a_lost_shard_is_described_again_from_the_pictures(indexed: Path, damage: Callable[[Path], None]) -> None:
    """By the command, under the same ids, with the same answers."""
    right = answers(indexed)
    damage(indexed)

    found_code, found = whatwhere("verify", "-c", indexed, "--json")
    code, output = whatwhere("verify", "-c", indexed, "--repair")

    assert found_code == 1
    (fault,) = json.loads(found)
    assert (fault["part"], fault["file"], fault["remains"]) == ("shard", "shards/00000001.safetensors", True)
    assert (code, output.splitlines()[-1]) == (0, "1 faults, 0 remain")
    assert whatwhere("verify", "-c", indexed, "--deep") == (0, f"{indexed}: no faults\n")
    assert [without_place(entry) for entry in answers(indexed)] == [without_place(entry) for entry in right]  # type: ignore[attr-defined]


def without_place(answer: tuple[object, ...]) -> object:
    """Return an answer without the shard that it came from."""
    image = answer[0]
    return (image.id, image.uris, *answer[1:]) if hasattr(image, "uris") else answer


def test_a_picture_that_is_gone_too_is_listed_as_lost(indexed: Path, pictures: Path, tmp_path: Path) -> None:
    """The others are found as before; the reason is in the list of failures."""
    moved = tmp_path / "elsewhere.png"
    (pictures / "2.png").rename(moved)
    unlink("shards/*")(indexed)

    code, _ = whatwhere("verify", "-c", indexed, "--repair")
    moved.rename(pictures / "2.png")

    assert code == 0
    failed = json.loads(whatwhere("images", "-c", indexed, "--state", "failed", "--json")[1])
    assert [(Path(image["uri"]).name, image["failure_reason"]) for image in failed] == [("2.png", "SHARD_LOST")]
    with open_collection(indexed) as reader:
        assert len(reader.ids) == 5


# --- rebuild and compact ----------------------------------------------------------------------------------------


def test_vectors_can_be_made_in_another_way_without_pictures(indexed: Path, pictures: Path, tmp_path: Path) -> None:
    """Other descriptors, the other preset, another index: what the manifest says and what a new collection has."""
    chosen = ("what", "gem")
    index_paths([pictures], tmp_path / "new.ww", IndexSettings(descriptors=chosen, preset="thesis"))
    (pictures / "0.png").rename(tmp_path / "0.png")

    code, output = whatwhere(
        "rebuild", "-c", indexed, "--descriptors", "gem, what", "--preset", "thesis", "--index-factory", "HNSW8"
    )
    (tmp_path / "0.png").rename(pictures / "0.png")

    assert (code, output) == (0, f"{indexed}: generation 2, 6 images, what, gem\n")
    with open_collection(indexed) as reader, open_collection(tmp_path / "new.ww") as expected:
        assert (reader.recipe.descriptors, reader.recipe.preset, reader.recipe.index_factory) == (
            chosen,
            "thesis",
            "HNSW8",
        )
        assert [*reader.indexes] == [*chosen]
        for name in chosen:
            for image_id in expected.ids.tolist():
                found, wanted = (each.index(name).vectors.vector(image_id) for each in (reader, expected))
                np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert verify_collection(indexed, deep=True) == []


def test_a_rebuilt_collection_grows_by_its_new_recipe(indexed: Path, pictures: Path, tmp_path: Path) -> None:
    """Without a word about it; what its shards keep stays enough for every descriptor it once had."""
    more = shutil.copytree(pictures, tmp_path / "more")
    Image.new("RGB", (40, 40), (200, 30, 90)).save(more / "7.png")
    rebuild(indexed, RebuildSettings(descriptors=("what",)))

    index_paths([more], indexed)
    back = rebuild(indexed, RebuildSettings(descriptors=("what", "what-and-where", "fused")))

    assert (back.image_count, [*back.indexes]) == (7, ["what", "what-and-where", "fused"])
    assert verify_collection(indexed, deep=True) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--descriptors", "crow"), "the shards keep no rows of crow"),
        (("--descriptors", "color"), "descriptor 'color' is unknown"),
        (("--index-factory", "PQ8"), "cannot be searched with a filter"),
        (("--index-factory", "IVF64,Flat"), "cannot be trained on 6 vectors"),
        (("--whiteners", "/nowhere"), "is missing"),
    ],
    ids=["rows that are not kept", "no descriptor", "no factory", "too few", "no whiteners"],
)
def test_what_cannot_be_made_is_refused_and_changes_nothing(
    indexed: Path, arguments: tuple[str, ...], said: str
) -> None:
    """The old generation stays, and the error says what would do."""
    with pytest.raises(WhatwhereError, match=said):
        whatwhere("rebuild", "-c", indexed, *arguments)

    assert Layout(indexed).current_number() == 1
    assert verify_collection(indexed) == []


def test_compaction_reclaims_what_was_removed(root: Path) -> None:
    """Shards without gaps, one segment for each descriptor, and the same answers for what is left."""
    right = answers(root)

    reclaimed = compact(root)

    assert reclaimed.after < reclaimed.before
    manifest = Manifest.live(Layout(root))
    assert manifest is not None
    assert {len(entry.segments) for entry in manifest.indexes.values()} == {1}
    assert [path.name for path in Layout(root).shards.iterdir()] == ["00000004.safetensors"]
    assert verify_collection(root, deep=True) == []
    assert [without_place(entry) for entry in answers(root)] == [without_place(entry) for entry in right]  # type: ignore[attr-defined]


def test_compaction_of_what_is_compact_changes_nothing(root: Path) -> None:
    """No new generation, no new shard."""
    compact(root)
    before = {path: path.read_bytes() for path in files_of(root) if path.suffix != ".db"}

    compact(root)

    assert {path: path.read_bytes() for path in files_of(root) if path.suffix != ".db"} == before


def test_a_reader_goes_on_through_a_compaction(root: Path) -> None:
    """It finds the shards that its images have moved to, also with records read before."""
    with open_collection(root) as reader:
        images = [reader.indexed_image(image_id) for image_id in reader.ids.tolist()]
        before = [reader.description(image).factors.where.tobytes() for image in images]

        compact(root)

        assert [reader.description(image).factors.where.tobytes() for image in images] == before
