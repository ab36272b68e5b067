"""The directory of a collection: shards, publishing, opening. The descriptions are made up, the files are real."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy.exc import IntegrityError

from tests import commands
from tests.made_up import (
    DIMENSIONS,
    OTHER_WHITENERS,
    RANK,
    RECIPE,
    WHITENERS,
    append,
    described,
    fill,
    found,
    ids_of,
    in_every_index,
    publish_with,
    stored,
    take_away,
    vector_of,
)
from whatwhere.indexer.catalog.records import NewImage, Outcome, Source
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.publish import publish
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.collection.recipe import Recipe
from whatwhere.indexer.collection.sealed import FORMAT_VERSION, read_sealed, write_sealed
from whatwhere.indexer.collection.shards import read_descriptions, write_shard
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.errors import (
    CollectionCorrupt,
    CollectionLocked,
    CollectionMismatch,
    CollectionNotFound,
    DescriptorNotIndexed,
    ImageNotFound,
    WhatwhereError,
)
from whatwhere.indexer.features import whitening
from whatwhere.indexer.features.description import Description
from whatwhere.indexer.maintenance.info import inspect_collection
from whatwhere.indexer.vectors.store import SegmentEntry

Publish = Callable[[], Manifest | None]


def segment_bytes(root: Path) -> dict[str, list[bytes]]:
    """Return the bytes of the live generation's segments, by descriptor."""
    manifest = Manifest.live(Layout(root))
    assert manifest is not None
    return {
        name: [(Layout(root).segments / segment.file_name).read_bytes() for segment in entry.segments]
        for name, entry in manifest.indexes.items()
    }


def vectors_of(root: Path) -> dict[str, dict[int, bytes]]:
    """Return every vector of the live generation, by descriptor and id."""
    with open_collection(root) as reader:
        return {
            name: {image_id: index.vectors.vector(image_id).tobytes() for image_id in index.vectors.ids.tolist()}
            for name, index in reader.indexes.items()
        }


def generations(root: Path) -> list[str]:
    return sorted(path.name for path in Layout(root).generations.iterdir())


def same(first: Description, second: Description) -> bool:
    """Tell whether two descriptions are equal to the bit."""
    mine, theirs = vars(first.factors) | dict(first.pooled), vars(second.factors) | dict(second.pooled)
    return all(
        np.asarray(mine[name]).dtype == np.asarray(theirs[name]).dtype and np.array_equal(mine[name], theirs[name])
        for name in mine | theirs
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a published collection of five images in two shards that no test may change."""
    root = tmp_path_factory.mktemp("template") / "five.ww"
    fill(root, [1, 2, 3], [4, 5])
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """Give a published collection of five images in two shards."""
    return shutil.copytree(template, tmp_path / "five.ww")


@pytest.fixture
def new_root(tmp_path: Path) -> Path:
    """Give a directory for a collection that is not there yet."""
    return tmp_path / "new.ww"


# --- shards -----------------------------------------------------------------------------------------------------


def test_a_shard_gives_back_what_was_written(tmp_path: Path) -> None:
    """Descriptions of different grids and numbers of pooled rows come back bit by bit, in the order asked for."""
    written = [described(0, 3, 4, 2), described(1, 5, 2, 7), described(2, 1, 1, 1), described(3, 6, 9, 3)]

    write_shard(tmp_path / "shard", written)
    read = list(read_descriptions(tmp_path / "shard", [2, 0, 3, 1]))

    assert all(same(description, written[row]) for description, row in zip(read, [2, 0, 3, 1], strict=True))


def test_a_shard_can_hold_factors_alone(tmp_path: Path) -> None:
    """Without pooled descriptors there are none to read."""
    factors_only = Description(described(0).factors)

    write_shard(tmp_path / "shard", [factors_only])

    assert same(next(read_descriptions(tmp_path / "shard", [0])), factors_only)


def test_the_same_content_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    """Two shards of equal descriptions are equal files."""
    for name in ("first", "second"):
        write_shard(tmp_path / name, [described(0), described(1)])

    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_shard_leaves_nothing_beside_itself(tmp_path: Path) -> None:
    """The temporary file is renamed, not copied."""
    write_shard(tmp_path / "shard", [described(0)])

    assert [path.name for path in tmp_path.iterdir()] == ["shard"]


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_torn_shard_is_corrupt(tmp_path: Path, kept: float) -> None:
    """A shard cut at its start, in its header, its middle or its end is a named error, never other numbers."""
    path = tmp_path / "00000001.safetensors"
    write_shard(path, [described(0), described(1)])
    os.truncate(path, int(path.stat().st_size * kept))

    with pytest.raises(CollectionCorrupt, match=r"shard 00000001\.safetensors is missing or damaged .*: run"):
        list(read_descriptions(path, [0]))


def test_a_missing_shard_is_corrupt(tmp_path: Path) -> None:
    """The error names the shard."""
    with pytest.raises(CollectionCorrupt, match=r"shard 00000009\.safetensors is missing"):
        list(read_descriptions(tmp_path / "00000009.safetensors", [0]))


def test_a_row_that_a_shard_does_not_have_is_corrupt(tmp_path: Path) -> None:
    """The catalogue and the shard contradict each other."""
    write_shard(tmp_path / "shard", [described(0)])

    with pytest.raises(CollectionCorrupt, match="shard is missing or damaged"):
        list(read_descriptions(tmp_path / "shard", [1]))


# --- writing ----------------------------------------------------------------------------------------------------


def test_shards_are_numbered_in_order(new_root: Path) -> None:
    """Each chunk with descriptions is one shard with its size and checksum; a chunk without makes none."""
    with open_for_writing(new_root, RECIPE) as writer:
        append(writer, 1, 2)
        writer.append([Outcome(Source("file:///torn.jpg", 1, 1), NewImage("torn", 1, failure_reason="X"))], [])
        append(writer, 3)
        shards = writer.catalog.shards()

    assert [(shard.file_name, shard.image_count) for shard in shards] == [
        ("00000001.safetensors", 2),
        ("00000002.safetensors", 1),
    ]
    for shard in shards:
        assert (Layout(new_root).shards / shard.file_name).stat().st_size == shard.byte_count


def test_a_shard_that_nothing_records_is_written_over(new_root: Path) -> None:
    """The shard of a run that was killed before its transaction is replaced by the next one."""
    with open_for_writing(new_root, RECIPE) as writer:
        (writer.layout.shards / "00000001.safetensors").write_bytes(b"the shard of a killed run")
        append(writer, 1)

    (shard,) = Layout(new_root).shards.iterdir()
    assert same(next(read_descriptions(shard, [0])), stored(1))


def test_publishing_answers_with_the_live_generation_and_whether_it_is_new(root: Path) -> None:
    """What has not changed is published already."""
    with open_for_writing(root) as writer:
        same_ = publish(writer.layout, writer.catalog, writer.recipe, WHITENERS)
        append(writer, 6)
        added = publish(writer.layout, writer.catalog, writer.recipe, WHITENERS)

    assert (same_.is_new, same_.manifest.number, same_.manifest.image_count) == (False, 1, 5)
    assert (added.is_new, added.manifest.number, added.manifest.image_count) == (True, 2, 6)


def test_a_chunk_that_cannot_be_recorded_leaves_the_collection_as_it_was(root: Path) -> None:
    """A shard without its transaction changes nothing that can be read, and is no obstacle."""
    impossible = [*found([6]), Outcome(Source("file:///x.jpg", 1, 1), known_hash="never recorded")]

    with open_for_writing(root, RECIPE) as writer:
        with pytest.raises(IntegrityError):
            writer.append(impossible, [described(6)])
        assert publish_with(writer) is None
        append(writer, 7)
        publish_with(writer)

    assert ids_of(root) == in_every_index(1, 2, 3, 4, 5, 6)


def test_a_collection_is_opened_by_the_recipe_that_made_it(root: Path) -> None:
    """The recipe is kept and compared."""
    with open_for_writing(root, RECIPE) as writer:
        assert writer.recipe == RECIPE

    assert Recipe.load(Layout(root)) == RECIPE


@pytest.mark.parametrize("name", ["precision", "preset", "pooled"])
def test_a_recipe_of_this_format_without_an_entry_is_corrupt(root: Path, name: str) -> None:
    """Only older formats had no such choice; a damaged file is not taken for one of them."""
    values, _ = read_sealed(Layout(root).recipe)
    del values[name]
    write_sealed(Layout(root).recipe, values)

    with pytest.raises(CollectionCorrupt, match=name):
        Recipe.load(Layout(root))


def test_a_recipe_takes_only_its_network() -> None:
    """The layer and the weights, of which the begin of the checksum may be all that is known."""
    recipe = replace(RECIPE, weights_sha256="12ab" * 16)

    recipe.require_network("some-layer", "12ab" * 16, Path("c.ww"))
    recipe.require_network("some-layer", "12ab12ab", Path("c.ww"))
    for layer, weights in (("deep", "12ab" * 16), ("some-layer", "12ac" * 16), ("some-layer", "12ac12ab")):
        with pytest.raises(
            CollectionMismatch, match=rf"c\.ww was made with some-net, layer some-layer, .*{layer}.*{weights[:8]}"
        ):
            recipe.require_network(layer, weights, Path("c.ww"))


@pytest.mark.parametrize(
    ("change", "named", "unnamed"),
    [
        ({"rank": 5}, ["rank 3, not 5"], ["backbone", "descriptors"]),
        ({"backbone": "other-net"}, ["backbone 'some-net', not 'other-net'"], ["rank"]),
        ({"weights_sha256": "1" * 64}, [f"weights_sha256 '{'0' * 64}', not '{'1' * 64}'"], ["rank", "layer"]),
        ({"descriptors": ("what",)}, ["descriptors", "not ('what',)", "with `whatwhere rebuild`"], ["rank", "new dir"]),
        ({"preset": "default"}, ["preset 'thesis', not 'default'", "with `whatwhere rebuild`"], ["rank", "format"]),
        ({"rank": 4, "layer": "deep"}, ["rank 3, not 4", "layer 'some-layer', not 'deep'"], ["shorter_side"]),
    ],
    ids=["rank", "backbone", "weights", "descriptors", "preset", "two values"],
)
def test_another_recipe_is_refused_by_the_values_that_differ(
    root: Path, change: dict[str, Any], named: list[str], unnamed: list[str]
) -> None:
    """The message names what differs and the remedy, and nothing that agrees."""
    with (
        pytest.raises(CollectionMismatch, match="use the collection's own, or") as raised,
        open_for_writing(root, replace(RECIPE, **change)),
    ):
        pass

    assert all(words in str(raised.value) for words in named)
    assert not any(words in str(raised.value) for words in unnamed)


def test_a_refused_recipe_changes_nothing(root: Path) -> None:
    """After a mismatch the recipe is the old one, and the lock is free."""
    with pytest.raises(CollectionMismatch), open_for_writing(root, replace(RECIPE, rank=5)):
        pass

    with open_for_writing(root, RECIPE) as writer:
        assert Recipe.load(writer.layout) == RECIPE


def test_a_lost_catalog_is_not_begun_anew(root: Path) -> None:
    """New ids beside the vectors of the old ones would be wrong answers: a published collection needs its catalogue."""
    Layout(root).catalog.unlink()

    with pytest.raises(CollectionCorrupt), open_for_writing(root, RECIPE):
        pass


def test_a_catalog_from_a_backup_is_not_mixed_with_newer_vectors(root: Path) -> None:
    """An older catalogue gives out ids again that a newer generation has: none may answer for another image."""
    backup = Layout(root).catalog.read_bytes()
    fill(root, [6])
    Layout(root).catalog.write_bytes(backup)

    with suppress(CollectionCorrupt):
        fill(root, [7])

    with open_collection(root) as reader:
        for image in reader.catalog.images():
            expected = vector_of(stored(int(image.content_hash or "")), "what")
            np.testing.assert_allclose(reader.index("what").vectors.vector(image.id), expected, rtol=0, atol=1e-6)


def test_a_file_is_no_place_for_a_collection(tmp_path: Path) -> None:
    """A path that is not a directory is a named error."""
    path = tmp_path / "file.ww"
    path.write_text("not a collection")

    with pytest.raises(WhatwhereError), open_for_writing(path, RECIPE):
        pass


# --- one writer -------------------------------------------------------------------------------------------------

HOLDING = """
import signal, sys
from pathlib import Path
from dataclasses import replace
from whatwhere.indexer.collection.writer import open_for_writing
from tests.made_up import RECIPE
with open_for_writing(Path(sys.argv[1]), replace(RECIPE, descriptors=("what",))):
    print("holding", flush=True)
    signal.pause()
"""


@pytest.fixture
def holder(new_root: Path) -> Iterator[commands.Process]:
    """Give another process that is writing to the collection at `new_root`."""
    with commands.start(new_root, before=HOLDING) as process:
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused_until_the_first_is_gone(new_root: Path, holder: commands.Process) -> None:
    """The error names the process that writes; when that one is killed, its lock is gone with it."""
    recipe = replace(RECIPE, descriptors=("what",))

    with (
        pytest.raises(CollectionLocked, match=rf"new\.ww is being written to by process {holder.pid}: wait"),
        open_for_writing(new_root, recipe),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    with open_for_writing(new_root, recipe):
        assert Layout(new_root).lock.read_text() == f"{os.getpid()} on {socket.gethostname()}"


def test_readers_need_no_lock(root: Path) -> None:
    """A collection that is being written to can be opened."""
    with open_for_writing(root, RECIPE), open_collection(root) as reader:
        assert reader.manifest.image_count == 5


# --- publishing -------------------------------------------------------------------------------------------------


def test_a_generation_says_what_it_holds(root: Path) -> None:
    """The manifest counts images and names recipe, shards, indexes and whiteners."""
    manifest = Manifest.load(Layout(root).generation(1))

    assert (manifest.number, manifest.recipe, manifest.image_count) == (1, RECIPE, 5)
    assert (manifest.max_image_id, manifest.ids_sha256) == (5, sha256(struct.pack("<5q", 1, 2, 3, 4, 5)).hexdigest())
    for name, entry in manifest.indexes.items():
        (segment,) = entry.segments
        path = Layout(root).segments / f"000001.{name}.0.faiss"
        assert segment == SegmentEntry(path.name, "Flat", 5, path.stat().st_size, sha256(path.read_bytes()).hexdigest())
    assert {name: entry.whiteners for name, entry in manifest.indexes.items()} == {
        name: tuple(whitener.fingerprint for whitener in parts) for name, parts in WHITENERS.items()
    }
    assert {name: entry.dimensions for name, entry in manifest.indexes.items()} == {
        "what": DIMENSIONS,
        "what-and-where": DIMENSIONS,
        "fused": 2 * DIMENSIONS,
        "r-mac": DIMENSIONS,
    }
    assert {"whatwhere", "torch", "numpy"} <= manifest.libraries.keys()


def test_the_vectors_are_those_of_the_stored_descriptions(root: Path) -> None:
    """Every vector of every index equals the descriptor derived from the description that its image's shard holds."""
    with open_collection(root) as reader:
        for image in reader.catalog.images():
            description = reader.description(image)
            for name, index in reader.indexes.items():
                np.testing.assert_allclose(
                    index.vectors.vector(image.id), vector_of(description, name), rtol=0, atol=1e-6
                )


def test_the_vectors_follow_the_formula(root: Path) -> None:
    """The thesis': rows of length 1, less the mean, projected, summed, of length 1: here once more, in float64."""

    def by_hand(seed: int) -> NDArray[np.float64]:
        factors = stored(seed).factors
        rows = factors.what.astype(np.float64) * factors.what_scale[:, np.newaxis]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        (whitener,) = WHITENERS["what"]
        summed = ((rows - whitener.mean) @ whitener.projection).sum(axis=0)
        return np.asarray(summed / np.linalg.norm(summed))

    with open_collection(root) as reader:
        vectors = {
            image.content_hash: reader.index("what").vectors.vector(image.id) for image in reader.catalog.images()
        }

    for seed in (1, 2, 3, 4, 5):
        np.testing.assert_allclose(vectors[f"{seed}"], by_hand(seed), rtol=0, atol=1e-5)


def test_nothing_is_published_when_nothing_changed(root: Path) -> None:
    """A second publication of the same images through the same whiteners makes no generation."""
    assert fill(root) is None

    assert generations(root) == ["000001"]
    assert Layout(root).current_number() == 1


def test_the_first_publication_may_be_empty(new_root: Path) -> None:
    """A collection without images has a generation that answers with nothing."""
    fill(new_root)

    with open_collection(new_root) as reader:
        assert reader.manifest.image_count == 0
        assert {len(index.vectors) for index in reader.indexes.values()} == {0}


def test_new_images_are_added_to_the_vectors_there_are(root: Path, new_root: Path) -> None:
    """Indexing in two runs gives the same vectors as in one; what was there is not written again."""
    before = segment_bytes(root)

    fill(root, [6, 7])

    fill(new_root, [1, 2, 3], [4, 5], [6, 7])
    assert vectors_of(root) == vectors_of(new_root)
    assert {name: parts[:1] for name, parts in segment_bytes(root).items()} == before
    assert {len(parts) for parts in segment_bytes(root).values()} == {2}


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_many_images_are_read_a_part_at_a_time(
    template: Path, new_root: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """How many descriptions are read at once does not show in the vectors."""
    for module in ("segments", "derivation"):
        monkeypatch.setattr(f"whatwhere.indexer.collection.{module}._READ_AT_ONCE", at_once)

    fill(new_root, [1, 2, 3], [4, 5])

    assert segment_bytes(new_root) == segment_bytes(template)


def test_removed_images_leave_every_index(root: Path) -> None:
    """The next generation is without the image that lost its source, the others keep their vectors."""
    with open_collection(root) as reader:
        before = {name: index.vectors.vector(5) for name, index in reader.indexes.items()}
    take_away(root, 2)

    manifest = fill(root)

    assert manifest is not None
    assert (manifest.number, manifest.image_count) == (2, 4)
    assert ids_of(root) == in_every_index(1, 3, 4, 5)
    with open_collection(root) as reader:
        for name, index in reader.indexes.items():
            np.testing.assert_array_equal(index.vectors.vector(5), before[name])


def test_one_image_for_another_is_a_change(root: Path) -> None:
    """As many images as before are not the same images."""
    take_away(root, 2)

    fill(root, [6])

    assert ids_of(root) == in_every_index(1, 3, 4, 5, 7)


def test_an_image_that_comes_back_is_searchable_again(root: Path) -> None:
    """Its vector is made from the shard once more, under its old id."""
    take_away(root, 2)
    fill(root)

    with open_for_writing(root, RECIPE) as writer:
        writer.append([Outcome(Source("file:///2.jpg", 10, 3), known_hash="2")], [])
        publish_with(writer)

    assert ids_of(root) == in_every_index(1, 2, 3, 4, 5)


def test_other_whiteners_publish_everything_anew(root: Path) -> None:
    """All vectors go through the new whiteners, which the manifest names and the collection keeps."""
    manifest = fill(root, whiteners=OTHER_WHITENERS)

    assert manifest is not None
    assert ids_of(root) == in_every_index(1, 2, 3, 4, 5)
    with open_collection(root) as reader:
        image = reader.indexed_image(4)
        for name, index in reader.indexes.items():
            assert [each.fingerprint for each in index.whiteners] == [
                each.fingerprint for each in OTHER_WHITENERS[name]
            ]
            expected = vector_of(reader.description(image), name, OTHER_WHITENERS)
            np.testing.assert_allclose(index.vectors.vector(4), expected, rtol=0, atol=1e-6)


def test_another_second_whitener_makes_the_fused_anew(root: Path) -> None:
    """The whiteners of both parts decide whether vectors can stay."""
    before = segment_bytes(root)

    fill(root, whiteners=WHITENERS | {"fused": (WHITENERS["fused"][0], OTHER_WHITENERS["fused"][1])})

    after = segment_bytes(root)
    assert {name for name in before if before[name] != after[name]} == {"fused"}
    with open_collection(root) as reader:
        assert reader.index("fused").whiteners[1].fingerprint == OTHER_WHITENERS["fused"][1].fingerprint


def test_one_other_whitener_leaves_the_other_indexes_alone(root: Path) -> None:
    """Only the vectors of the changed descriptor change."""
    before = segment_bytes(root)

    fill(root, whiteners=WHITENERS | {"what": OTHER_WHITENERS["what"]})

    after = segment_bytes(root)
    assert {name for name in before if before[name] != after[name]} == {"what"}


def test_other_whiteners_are_taken_even_without_images(new_root: Path) -> None:
    """A collection that holds nothing yet still changes to the whiteners asked for."""
    fill(new_root)

    fill(new_root, whiteners=OTHER_WHITENERS)

    with open_collection(new_root) as reader:
        assert reader.index("what").whiteners[0].fingerprint == OTHER_WHITENERS["what"][0].fingerprint


def test_the_live_generation_and_the_one_before_are_kept(root: Path) -> None:
    """Older generations go, and what only they had; a server may still be opening the last but one."""
    fill(root, whiteners=OTHER_WHITENERS)
    for seed in (6, 7, 8):
        fill(root, [seed], whiteners=OTHER_WHITENERS)

    assert generations(root) == ["000004", "000005"]
    used = {segment for n in (4, 5) for segment in segments_named(root, n)}
    assert {path.name for path in Layout(root).segments.iterdir()} == used
    others = {whitener.fingerprint for parts in OTHER_WHITENERS.values() for whitener in parts}
    assert {path.stem for path in Layout(root).whiteners.iterdir()} == others


def segments_named(root: Path, number: int) -> list[str]:
    entries = Manifest.load(Layout(root).generation(number)).indexes.values()
    return [segment.file_name for entry in entries for segment in entry.segments]


def test_current_names_the_live_manifest(root: Path) -> None:
    """By its number and the checksum that it carries."""
    seal = json.loads(manifest_of(root).read_text())["sha256"]

    assert Layout(root).current.read_text() == f"000001 {seal}\n"


def test_an_open_reader_keeps_its_generation(root: Path) -> None:
    """A publication does not move the vectors of those who opened the generation before."""
    with open_collection(root) as reader:
        fill(root, [6])

        assert sorted(reader.index("what").vectors.ids.tolist()) == [1, 2, 3, 4, 5]
        assert reader.indexed_image(1).uris == ("file:///1.jpg",)


@pytest.mark.parametrize("leftover", ["generations/000002.tmp", "generations/000002", "generations/000007.tmp"])
def test_a_generation_of_a_killed_run_does_no_harm(root: Path, new_root: Path, leftover: str) -> None:
    """What was written before CURRENT named it is thrown away by the next publication."""
    shutil.copytree(Layout(root).generation(1), root / leftover)
    (root / leftover / "removed.npy").write_bytes(b"half a file")
    (Layout(root).segments / "000002.what.0.faiss").write_bytes(b"half an index")

    fill(root, [6])

    fill(new_root, [1, 2, 3], [4, 5], [6])
    assert generations(root) == ["000001", "000002"]
    assert vectors_of(root) == vectors_of(new_root)


def recorded_generations(root: Path) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(Layout(root).catalog)) as connection, connection:
        return connection.execute("SELECT number, image_count FROM generations ORDER BY number").fetchall()


def test_generations_are_recorded(root: Path) -> None:
    """The catalogue has each generation and how many images it holds."""
    fill(root, [6])

    assert recorded_generations(root) == [(1, 5), (2, 6)]


def test_a_generation_that_a_killed_run_could_not_record_is_recorded_by_the_next(root: Path) -> None:
    """A kill between CURRENT and the catalogue is made good."""
    with closing(sqlite3.connect(Layout(root).catalog)) as connection, connection:
        connection.execute("DELETE FROM generations")

    fill(root)

    assert recorded_generations(root) == [(1, 5)]


def test_an_image_whose_shard_is_lost_stops_the_publication(root: Path) -> None:
    """The old generation stays live when the new one cannot be made."""
    (Layout(root).shards / "00000002.safetensors").unlink()

    with pytest.raises(CollectionCorrupt, match=r"00000002\.safetensors is missing or damaged"):
        fill(root, whiteners=OTHER_WHITENERS)

    assert Layout(root).current_number() == 1
    assert ids_of(root)["what"] == [1, 2, 3, 4, 5]


# --- opening ----------------------------------------------------------------------------------------------------


def test_an_opened_collection_has_its_images(root: Path) -> None:
    """An indexed image comes with its record and its description."""
    with open_collection(root) as reader:
        image = reader.indexed_image(4)

        assert image.content_hash == "4"
        assert same(reader.description(image), stored(4))


def test_the_best_match_of_a_stored_vector_is_its_image(root: Path) -> None:
    """The memory-mapped vectors can be searched."""
    with open_collection(root) as reader:
        vectors = reader.index("what-and-where").vectors
        scores, ids = vectors.search(vectors.vector(3), 2)

        assert ids[0] == 3
        assert scores[0] == pytest.approx(1, abs=1e-5)


def test_a_descriptor_that_was_not_indexed_is_named(root: Path) -> None:
    """The error lists those there are."""
    with (
        open_collection(root) as reader,
        pytest.raises(DescriptorNotIndexed, match="no gem vectors, it has what, what-and-where, fused, r-mac"),
    ):
        reader.index("gem")


@pytest.mark.parametrize(
    ("descriptors", "best"),
    [
        (("what", "what-and-where", "fused", "r-mac"), "fused"),
        (("what", "what-and-where", "mac", "r-mac"), "what-and-where"),
        (("what", "gem"), "what"),
        (("mac", "r-mac", "crow", "gem"), "r-mac"),
        (("crow", "gem"), "gem"),
        (("mac",), "mac"),
    ],
)
def test_the_best_index_is_taken_where_none_is_named(root: Path, descriptors: tuple[str, ...], best: str) -> None:
    """Fused before what-and-where before what before the baselines, as far as they are there."""
    with open_collection(root) as reader:
        index = reader.index("what")
        held = replace(reader, indexes={name: replace(index, descriptor=name) for name in descriptors})

        assert held.index().descriptor == held.index(None).descriptor == best
        assert held.index(descriptors[-1]).descriptor == descriptors[-1]


def test_only_indexed_images_are_found(root: Path) -> None:
    """A removed, a failed, an unknown image and one that was not published yet are not in the collection."""
    take_away(root, 2)
    with open_for_writing(root, RECIPE) as writer:
        append(writer, 7)

    with open_collection(root) as reader:
        for image_id in (2, 6, 7, 99):
            with pytest.raises(ImageNotFound, match=f"images/{image_id} is not in the collection"):
                reader.indexed_image(image_id)


def test_a_directory_without_a_collection_is_not_found(tmp_path: Path) -> None:
    """The error says how to make one."""
    with pytest.raises(CollectionNotFound, match=r"holds no collection: create one with `whatwhere index"):
        open_collection(tmp_path)


def test_a_file_is_no_collection(tmp_path: Path) -> None:
    """A path that is not a directory is a named error."""
    path = tmp_path / "file.ww"
    path.write_text("not a collection")

    with pytest.raises(WhatwhereError):
        open_collection(path)


def test_a_collection_that_was_never_published_is_not_found(new_root: Path) -> None:
    """Before the first publication there is nothing to search."""
    with open_for_writing(new_root, RECIPE) as writer:
        append(writer, 1)

    with pytest.raises(CollectionNotFound, match="no published generation yet: run `whatwhere index` again"):
        open_collection(new_root)


def edit(path: Path, **values: object) -> None:
    """Change entries of a JSON file; None takes one out."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def manifest_of(root: Path) -> Path:
    return Layout(root).generation(1) / "manifest.json"


def what_index_of(root: Path) -> Path:
    return Layout(root).segments / "000001.what.0.faiss"


def removed_of(root: Path) -> Path:
    return Layout(root).generation(1) / "removed.npy"


def what_whitener_of(root: Path) -> Path:
    return Layout(root).whitener(WHITENERS["what"][0].fingerprint)


def fused_whitener_of(root: Path) -> Path:
    return Layout(root).whitener(WHITENERS["fused"][1].fingerprint)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rewrite(path: Path, **values: object) -> None:
    """Write a sealed file with other values, as something that knows the format would."""
    content, _ = read_sealed(path)
    write_sealed(path, content | values)


NEWER = FORMAT_VERSION + 1
CHANGED = "does not match its checksum"
DAMAGES: dict[str, tuple[Callable[[Path], object], type[WhatwhereError], str]] = {
    "recipe torn": (lambda root: cut(Layout(root).recipe), CollectionCorrupt, r"collection\.json is not valid JSON"),
    "recipe empty": (lambda root: Layout(root).recipe.write_text(""), CollectionCorrupt, "is not valid JSON"),
    "recipe a list": (lambda root: Layout(root).recipe.write_text("[]"), CollectionCorrupt, "no format_version"),
    "recipe without a rank": (lambda root: edit(Layout(root).recipe, rank=None), CollectionCorrupt, CHANGED),
    "recipe with another rank": (lambda root: edit(Layout(root).recipe, rank=4), CollectionCorrupt, CHANGED),
    "recipe without a seal": (lambda root: edit(Layout(root).recipe, sha256=None), CollectionCorrupt, CHANGED),
    "recipe with more": (lambda root: rewrite(Layout(root).recipe, more=1), CollectionCorrupt, "more"),
    "recipe newer": (
        lambda root: edit(Layout(root).recipe, format_version=NEWER),
        CollectionMismatch,
        rf"collection\.json has format {NEWER}, this whatwhere reads {FORMAT_VERSION}: upgrade",
    ),
    "recipe older": (lambda root: edit(Layout(root).recipe, format_version=1), CollectionCorrupt, CHANGED),
    "recipe of another": (
        lambda root: rewrite(Layout(root).recipe, rank=4),
        CollectionMismatch,
        "does not match the recipe",
    ),
    "manifest torn": (lambda root: cut(manifest_of(root)), CollectionCorrupt, "manifest.json is not valid"),
    "manifest missing": (lambda root: manifest_of(root).unlink(), CollectionCorrupt, "manifest.json is missing"),
    "manifest with other counts": (lambda root: edit(manifest_of(root), image_count=4), CollectionCorrupt, CHANGED),
    "manifest of another": (
        lambda root: rewrite(manifest_of(root), image_count=4),
        CollectionCorrupt,
        "not the manifest that CURRENT names",
    ),
    "manifest newer": (
        lambda root: edit(manifest_of(root), format_version=NEWER),
        CollectionMismatch,
        rf"manifest\.json has format {NEWER}",
    ),
    "CURRENT empty": (lambda root: Layout(root).current.write_text(""), CollectionCorrupt, "CURRENT does not hold"),
    "CURRENT garbage": (
        lambda root: Layout(root).current.write_bytes(b"\xff\xfe"),
        CollectionCorrupt,
        "CURRENT does not hold the number of a generation",
    ),
    "CURRENT too far": (
        lambda root: Layout(root).current.write_text("000009\n"),
        CollectionCorrupt,
        "generations/000009/manifest.json is missing",
    ),
    "removed missing": (lambda root: removed_of(root).unlink(), CollectionCorrupt, "removed.npy is missing"),
    "removed changed": (lambda root: flip(removed_of(root)), CollectionCorrupt, "removed.npy is missing or changed"),
    "whitener missing": (lambda root: what_whitener_of(root).unlink(), CollectionCorrupt, "is missing or damaged"),
    "whitener torn": (lambda root: cut(what_whitener_of(root)), CollectionCorrupt, "is missing or damaged"),
    "whitener changed": (lambda root: flip(what_whitener_of(root)), CollectionCorrupt, "does not match its"),
    "second whitener of other values": (
        lambda root: whitening.save(OTHER_WHITENERS["fused"][1], fused_whitener_of(root)),
        CollectionCorrupt,
        "does not match its fingerprint",
    ),
    "index missing": (lambda root: what_index_of(root).unlink(), CollectionCorrupt, r"what\.0\.faiss is missing or"),
    "index torn": (lambda root: cut(what_index_of(root)), CollectionCorrupt, r"what\.0\.faiss is missing or damaged"),
    "index changed": (lambda root: flip(what_index_of(root)), CollectionCorrupt, r"what\.0\.faiss is missing or dam"),
    "catalogue missing": (lambda root: Layout(root).catalog.unlink(), CollectionCorrupt, r"catalog\.db is missing"),
    "catalogue garbage": (
        lambda root: Layout(root).catalog.write_bytes(b"garbage, " * 1000),
        CollectionCorrupt,
        "not a readable catalog",
    ),
}


@pytest.mark.parametrize(("damage", "error", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_a_named_error(
    root: Path, damage: Callable[[Path], object], error: type[WhatwhereError], words: str
) -> None:
    """Whatever is missing, torn, newer or contradictory has an error that names it, never a wrong answer."""
    damage(root)

    with pytest.raises(error, match=words):
        open_collection(root)


@pytest.mark.parametrize("which", ["recipe torn", "manifest torn", "CURRENT garbage", "index torn"])
def test_damage_stops_a_publication(root: Path, which: str) -> None:
    """A writer does not build on what is torn."""
    damage, error, _ = DAMAGES[which]
    damage(root)

    with pytest.raises(error):
        fill(root, [6])


# --- looking from outside ---------------------------------------------------------------------------------------


def test_an_inspection_counts_what_lies_there(root: Path) -> None:
    """Images by state, the live generation, its indexes, and the bytes of each part."""
    take_away(root, 2)

    report = inspect_collection(root)

    assert report["images"] == {"indexed": 4, "failed": 1, "removed": 1}
    assert (report["generation"], report["searchable_images"]) == (1, 5)
    assert report["recipe"]["rank"] == RANK
    prints = {name: [each.fingerprint[:12] for each in parts] for name, parts in WHITENERS.items()}
    assert report["indexes"]["what"] == f"5 Flat, {DIMENSIONS} dimensions, whitened by {prints['what'][0]}"
    assert report["indexes"]["fused"] == (
        f"5 Flat, {2 * DIMENSIONS} dimensions, whitened by {prints['fused'][0]} and {prints['fused'][1]}"
    )
    for part in ("shards", "segments", "generations", "whiteners"):
        files = [path for path in (root / part).rglob("*") if path.is_file()]
        assert report["bytes"][part] == sum(path.stat().st_size for path in files) > 0
    assert report["bytes"]["catalog"] >= (root / "catalog.db").stat().st_size


def test_a_collection_can_be_inspected_before_its_first_publication(new_root: Path) -> None:
    """There is no generation yet, and the images are counted."""
    with open_for_writing(new_root, RECIPE) as writer:
        append(writer, 1, 2)

    report = inspect_collection(new_root)

    assert (report["generation"], report["published_at"], report["searchable_images"]) == (None, None, 0)
    assert report["images"]["indexed"] == 2
    assert report["indexes"] == {}


def test_inspecting_nothing_is_an_error(tmp_path: Path) -> None:
    """A directory without a collection is not inspected, and stays empty."""
    with pytest.raises(CollectionNotFound):
        inspect_collection(tmp_path)

    assert list(tmp_path.iterdir()) == []
