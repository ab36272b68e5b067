"""What people remove, what vanished, and what compaction or a lost shard take."""

from pathlib import Path

import pytest

from tests.cataloguing import described, failed, keep, raw, source, states
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import FAILED, INDEXED, REMOVED, ImageRecord, Outcome, ShardRecord
from whatwhere.indexer.errors import CollectionMismatch


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    """Give a catalogue of a and b (two places) in the first shard, c in the second, and d, which failed."""
    keep(catalog, Outcome(source("a"), image=described("a", 0)), Outcome(source("b"), image=described("b", 1)))
    keep(catalog, Outcome(source("c"), image=described("c", 0)), Outcome(source("d"), image=failed("d")))
    keep(catalog, Outcome(source("b2"), known_hash="b"))
    catalog.set_metadata("file", {"file:///a": {"label": "boat"}, "file:///b": {"label": "cat"}})
    return catalog


def image(catalog: Catalog, image_id: int) -> ImageRecord:
    found = catalog.image(image_id)
    assert found is not None
    return found


def compact(catalog: Catalog, *shard_ids: int) -> None:
    """Move the living of these shards to one new shard."""
    living = [id_ for id_, shard_id, _, _ in catalog.live_places() if shard_id in shard_ids]
    shard = ShardRecord("00000009.safetensors", len(living), 100, "9" * 64)
    catalog.replace_shards(shard_ids, [(shard, [(id_, row) for row, id_ in enumerate(living)])])


# --- removal by people ------------------------------------------------------------------------------------------


def test_removed_images_are_counted_once(filled: Catalog) -> None:
    """What is removed already, or unknown, does not count."""
    assert filled.remove([1, 4, 99]) == 2
    assert filled.remove([1]) == 0
    assert states(filled) == {"a": REMOVED, "b": INDEXED, "c": INDEXED, "d": REMOVED}


@pytest.mark.parametrize("retry_failed", [True, False])
@pytest.mark.parametrize(("image_id", "content"), [(2, "b"), (4, "d")], ids=["indexed", "failed"])
def test_a_removed_image_is_not_looked_at_again(
    filled: Catalog, image_id: int, content: str, retry_failed: bool
) -> None:
    """Its places are unchanged and its content known, so that no run describes it, whatever it retries."""
    filled.remove([image_id])

    assert filled.has_content(content, retry_failed=retry_failed)
    assert filled.unchanged([source(content)], retry_failed=retry_failed) == {f"file:///{content}"}
    assert filled.id_of_content(content) is None


@pytest.mark.parametrize(
    "again",
    [
        Outcome(source("elsewhere"), known_hash="a"),
        Outcome(source("a", modified_ns=2), known_hash="a"),
        Outcome(source("elsewhere"), image=described("a")),
    ],
    ids=["at another place", "at its place", "described again"],
)
def test_a_removed_image_stays_removed(filled: Catalog, again: Outcome) -> None:
    """Content that is found again, wherever, does not come back."""
    filled.remove([1])

    keep(filled, again)

    assert image(filled, 1).state == REMOVED
    assert again.source.uri in image(filled, 1).uris


def test_a_removed_file_that_was_never_readable_stays_removed(catalog: Catalog) -> None:
    """Another failure to read it changes nothing."""
    keep(catalog, Outcome(source("x"), image=failed(None)))
    catalog.remove([1])

    keep(catalog, Outcome(source("x", modified_ns=2), image=failed(None)))

    assert [found.state for found in catalog.images()] == [REMOVED]


def test_a_removed_image_says_since_when(filled: Catalog) -> None:
    """Its record has the time; one whose places merely vanished has none."""
    filled.remove([1])
    filled.forget_sources(["file:///c"])

    assert image(filled, 1).removed_at is not None
    assert image(filled, 3).removed_at is None


def test_restoring_undoes_a_removal(filled: Catalog) -> None:
    """Everything is as before, also what had failed; what nobody removed does not count."""
    before = filled.images()
    filled.remove([1, 4])

    restored = filled.restore([1, 2, 4, 99])

    assert restored == 2
    assert filled.images() == before


def test_an_image_without_a_place_is_not_restored_to_the_index(filled: Catalog) -> None:
    """It comes back when a run finds its content, under its id and with its description."""
    filled.remove([1])
    filled.forget_sources(["file:///a"])

    filled.restore([1])
    before = image(filled, 1).state
    keep(filled, Outcome(source("new place"), known_hash="a"))

    assert before == REMOVED
    assert (image(filled, 1).state, image(filled, 1).shard_row) == (INDEXED, 0)


# --- what vanished ----------------------------------------------------------------------------------------------


VANISHED: list[tuple[list[str], list[str], list[str]]] = [
    (["file:///p/"], [], ["p/1", "p/2", "p/q/3"]),
    (["file:///p/"], ["file:///p/1", "file:///never"], ["p/2", "p/q/3"]),
    (["file:///p/q/"], [], ["p/q/3"]),
    (["file:///p"], [], []),
    (["file:///p/1"], [], ["p/1"]),
    (["file:///p/1"], ["file:///p/1"], []),
    (["file:///p/q/", "file:///p/1"], [], ["p/1", "p/q/3"]),
    (["file:///P/"], [], ["P/4"]),
    (["file:///p_/"], [], []),
    (["file:///px/"], [], ["px/5"]),
    ([], [], []),
]


def test_vanished_are_the_recorded_places_that_were_not_seen(catalog: Catalog) -> None:
    """Folders end with a slash; letter case counts and no character stands for another."""
    names = ("p/2", "p/1", "p/q/3", "P/4", "px/5")
    keep(catalog, *(Outcome(source(name), image=described(name, row)) for row, name in enumerate(names)))

    vanished = [(places, seen, catalog.vanished(places, seen)) for places, seen, _ in VANISHED]

    assert vanished == [(places, seen, [f"file:///{name}" for name in expected]) for places, seen, expected in VANISHED]


def test_vanished_takes_many_places_and_many_files(catalog: Catalog) -> None:
    """Thousands of places are asked for in parts."""
    names = [f"f{number}/x" for number in range(250)]
    keep(catalog, *(Outcome(source(name), image=described(name, row)) for row, name in enumerate(names)))

    vanished = catalog.vanished([f"file:///f{number}/" for number in range(2000)], ["file:///f7/x"])

    assert len(vanished) == 249


def test_an_image_goes_with_its_last_place(filled: Catalog) -> None:
    """An image of two places stays with the other one; unknown URIs do not count."""
    forgotten = filled.forget_sources(["file:///a", "file:///b", "file:///never"])

    assert forgotten == 2
    assert (image(filled, 1).state, image(filled, 1).uris, image(filled, 1).user_metadata) == (REMOVED, (), {})
    assert (image(filled, 2).state, image(filled, 2).uris, image(filled, 2).user_metadata) == (
        INDEXED,
        ("file:///b2",),
        {},
    )
    assert filled.check() == []


def test_an_image_comes_back_with_its_place(filled: Catalog) -> None:
    """Found again it is not described again, and has its id."""
    before = image(filled, 3)
    filled.forget_sources(["file:///c"])

    known = filled.has_content("c")
    keep(filled, Outcome(source("c"), known_hash="c"))

    assert known
    assert image(filled, 3) == before


# --- compaction -------------------------------------------------------------------------------------------------


def test_live_places_are_those_of_indexed_images(filled: Catalog) -> None:
    """They come by shard and row, with the shard's id and file."""
    filled.remove([1])

    assert filled.live_places() == [(2, 1, "00000001.safetensors", 1), (3, 2, "00000002.safetensors", 0)]


def test_compaction_moves_what_lives_and_forgets_what_does_not(filled: Catalog) -> None:
    """The living are in the new shard; of what a person removed, content and time are left, of the vanished nothing."""
    filled.remove([1])
    filled.forget_sources(["file:///c"])
    removed_at = image(filled, 1).removed_at

    compact(filled, 1, 2)

    assert [shard.file_name for shard in filled.shards()] == ["00000009.safetensors"]
    assert (image(filled, 2).shard_file, image(filled, 2).shard_row) == ("00000009.safetensors", 0)
    sticky, vanished = image(filled, 1), image(filled, 3)
    assert (sticky.state, sticky.content_hash, sticky.removed_at) == (REMOVED, "a", removed_at)
    assert (sticky.shard_file, sticky.shard_row, sticky.uris, sticky.user_metadata) == (None, None, (), {})
    assert (vanished.state, vanished.content_hash, vanished.shard_file) == (REMOVED, None, None)
    assert filled.check() == []


def test_shards_that_are_not_compacted_keep_what_was_removed_from_them(filled: Catalog) -> None:
    """There it can be restored as it was."""
    filled.remove([1, 3])
    before = image(filled, 3)

    compact(filled, 1)

    assert image(filled, 3) == before
    assert filled.check() == []


def test_compaction_that_would_lose_an_image_changes_nothing(filled: Catalog) -> None:
    """An image that lives must be in a new shard."""
    before = filled.images(), filled.shards()
    shard = ShardRecord("00000009.safetensors", 1, 100, "9" * 64)

    with pytest.raises(CollectionMismatch, match="images/2 is in no new shard"):
        filled.replace_shards([1], [(shard, [(1, 0)])])

    assert (filled.images(), filled.shards()) == before


def test_what_a_person_removed_stays_removed_after_compaction(filled: Catalog) -> None:
    """Its content is still known, and found again it is not described."""
    filled.remove([1])
    compact(filled, 1)

    known = filled.has_content("a")
    keep(filled, Outcome(source("a"), known_hash="a"))

    assert known
    assert image(filled, 1).state == REMOVED
    assert filled.unchanged([source("a")]) == {"file:///a"}


def test_what_is_restored_after_compaction_is_described_again_under_its_id(filled: Catalog) -> None:
    """Its description is gone: until the next run it stays removed, and its content counts as new."""
    filled.remove([1])
    compact(filled, 1)

    restored = filled.restore([1])
    waiting, known = image(filled, 1).state, filled.has_content("a")
    keep(filled, Outcome(source("a"), image=described("a")))

    assert (restored, waiting, known) == (1, REMOVED, False)
    assert (image(filled, 1).state, image(filled, 1).content_hash) == (INDEXED, "a")
    assert filled.check() == []


def test_what_waits_to_be_described_again_survives_another_compaction(filled: Catalog) -> None:
    """A restored image keeps its content, and with it its id."""
    filled.remove([1])
    compact(filled, 1)
    filled.restore([1])

    shard = ShardRecord("00000010.safetensors", 1, 100, "8" * 64)
    filled.replace_shards([2], [(shard, [(3, 0)])])

    assert image(filled, 1).content_hash == "a"


# --- lost shards ------------------------------------------------------------------------------------------------


def test_a_lost_shard_fails_its_images(filled: Catalog) -> None:
    """Ids and contents stay, the places that must be indexed again come back."""
    lost = filled.lose_shard("00000001.safetensors")

    assert lost == ["file:///a", "file:///b", "file:///b2"]
    assert [shard.file_name for shard in filled.shards()] == ["00000002.safetensors"]
    failure = image(filled, 1)
    assert (failure.state, failure.failure_reason, failure.content_hash) == (FAILED, "SHARD_LOST", "a")
    assert "00000001.safetensors" in (failure.failure_message or "")
    assert filled.check() == []


def test_an_unknown_shard_is_not_lost(filled: Catalog) -> None:
    """Nothing happens."""
    before = filled.images()

    assert filled.lose_shard("00000077.safetensors") == []
    assert filled.images() == before


@pytest.mark.parametrize("retry_failed", [True, False])
def test_what_lost_its_shard_is_always_tried_again(filled: Catalog, retry_failed: bool) -> None:
    """Whether or not failures are, and as the same image."""
    filled.lose_shard("00000001.safetensors")

    assert not filled.has_content("a", retry_failed=retry_failed)
    assert filled.unchanged([source("a"), source("c")], retry_failed=retry_failed) == {"file:///c"}
    keep(filled, Outcome(source("a"), image=described("a")))
    assert (image(filled, 1).state, image(filled, 1).failure_reason) == (INDEXED, None)


def test_what_a_person_removed_stays_removed_when_its_shard_is_lost(filled: Catalog) -> None:
    """It is not to be indexed again; restored, it waits for the next run."""
    filled.remove([1])

    lost = filled.lose_shard("00000001.safetensors")
    known = filled.has_content("a")
    filled.restore([1])

    assert lost == ["file:///b", "file:///b2"]
    assert known
    assert (image(filled, 1).state, filled.has_content("a")) == (REMOVED, False)


# --- numbers and space ------------------------------------------------------------------------------------------


def test_the_highest_id_and_generation_are_known(catalog: Catalog) -> None:
    """Both are 0 at first; removed images count."""
    first = catalog.max_id(), catalog.last_generation()
    keep(catalog, Outcome(source("a"), image=described("a", 0)), Outcome(source("b"), image=described("b", 1)))
    catalog.remove([2])
    catalog.record_generation(9, 1)
    catalog.record_generation(3, 1)

    assert first == (0, 0)
    assert (catalog.max_id(), catalog.last_generation()) == (2, 9)


def test_vacuum_gives_space_back(path: Path, catalog: Catalog) -> None:
    """The file is smaller once its content went, and whole."""
    keep(catalog, *(Outcome(source(f"{row}" * 500), image=described(f"{row}", row)) for row in range(300)))
    catalog.vacuum()
    before = path.stat().st_size
    catalog.forget_sources([f"file:///{f'{row}' * 500}" for row in range(300)])

    catalog.vacuum()

    assert path.stat().st_size < before / 2
    assert catalog.check() == []
    assert raw(path, "PRAGMA journal_mode") == [("wal",)]
