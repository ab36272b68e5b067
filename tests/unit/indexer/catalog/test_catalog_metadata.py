"""Metadata by source and origin, and the union that an image has."""

from collections.abc import Mapping

import pytest

from tests.cataloguing import described, keep, raw, source
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.database import CatalogAddress
from whatwhere.indexer.catalog.records import Outcome
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.metadata.filters import parse

A, B = "file:///a", "file:///b"


@pytest.fixture
def twice(catalog: Catalog) -> Catalog:
    """Give a catalogue of one image at two places, a before b, and another at c."""
    keep(catalog, Outcome(source("a"), image=described("x", 0)), Outcome(source("b"), known_hash="x"))
    keep(catalog, Outcome(source("c"), image=described("y", 0)))
    return catalog


def metadata(catalog: Catalog, image_id: int = 1) -> Mapping[str, object]:
    found = catalog.image(image_id)
    assert found is not None
    return found.user_metadata


def test_metadata_comes_back_as_it_was_given(twice: Catalog) -> None:
    """Every type that JSON has."""
    said = {
        "text": "é😀",
        "backslash": "\\u0000 \\\\u0000",
        "whole": 2**62,
        "huge": 2**70,
        "part": 0.1,
        "float": 1.0,
        "yes": True,
        "list": [1, "a", [None]],
        "inner": {"x": {"y": 1}, "b": 2, "a": 1},
    }

    changed = twice.set_metadata("file", {A: said})

    assert changed == 1
    assert metadata(twice) == said
    assert metadata(twice, 2) == {}
    assert twice.check() == []


def test_the_first_place_wins_and_in_a_place_the_table(twice: Catalog) -> None:
    """Name by name: places in the order in which they were found, in each the table, then the sidecar, then EXIF."""
    twice.set_metadata("exif", {B: {"who": "exif b", "camera": "exif b"}, A: {"who": "exif a", "taken": "exif a"}})
    twice.set_metadata("file", {B: {"who": "file b", "title": "file b"}})
    twice.set_metadata("sidecar", {A: {"who": "sidecar a", "note": "sidecar a"}})

    assert metadata(twice) == {
        "who": "sidecar a",
        "note": "sidecar a",
        "taken": "exif a",
        "title": "file b",
        "camera": "exif b",
    }


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_origin_can_be_taken_away(twice: Catalog, nothing: dict[str, object] | None) -> None:
    """What other origins and places say comes forth."""
    twice.set_metadata("file", {A: {"who": "file a"}, B: {"who": "file b"}})

    changed = twice.set_metadata("file", {A: nothing})

    assert changed == 1
    assert metadata(twice) == {"who": "file b"}
    assert twice.ids_where(parse('who = "file a"')).tolist() == []


def test_equal_metadata_writes_nothing(address: CatalogAddress, twice: Catalog) -> None:
    """Unknown places are passed over; only what differs counts and is written."""
    twice.set_metadata("file", {A: {"x": 1, "y": [True]}})
    before = raw(address, "SELECT updated_at FROM images WHERE id = 1")

    changed = twice.set_metadata("file", {A: {"y": [True], "x": 1}, B: None, "file:///never": {"x": 1}})

    assert changed == 0
    assert raw(address, "SELECT updated_at FROM images WHERE id = 1") == before


@pytest.mark.parametrize(("before", "after"), [(1, True), (1, 1.0), (0, False), ("1", 1)])
def test_another_type_is_another_value(twice: Catalog, before: object, after: object) -> None:
    """Python takes 1 and True for equal, filters do not."""
    twice.set_metadata("file", {A: {"x": before}})

    changed = twice.set_metadata("file", {A: {"x": after}})

    assert changed == 1
    assert type(metadata(twice)["x"]) is type(after)


NOT_KEPT: dict[str, dict[str, object]] = {
    "nan": {"x": float("nan")},
    "infinite": {"x": [float("inf")]},
    "too large": {"x": 10**400},
    "half a character": {"x": "\ud800"},
    "NUL": {"x": "a\0b"},
    "a name with NUL": {"a\0b": 1},
    "a set": {"x": {1, 2}},
    "bytes": {"x": b"bytes"},
}


def test_what_cannot_be_kept_is_refused(twice: Catalog) -> None:
    """Nothing is written, of the others neither."""
    said = {}
    for kind, values in NOT_KEPT.items():
        try:
            said[kind] = f"{twice.set_metadata('file', {B: {'x': 1}, A: values})} were written"
        except InvalidRequest as error:
            said[kind] = str(error)
        assert metadata(twice) == {}, kind

    assert {kind: words for kind, words in said.items() if "metadata cannot be stored" not in words} == {}


def test_an_unknown_origin_is_refused(twice: Catalog) -> None:
    """The error names those there are."""
    with pytest.raises(InvalidRequest, match="'elsewhere' is not an origin of metadata: use file, sidecar, exif"):
        twice.set_metadata("elsewhere", {A: {"x": 1}})


def test_metadata_of_thousands_of_places_is_set_in_parts(catalog: Catalog) -> None:
    """More places than one query takes."""
    names = [f"{row}" for row in range(1200)]
    keep(catalog, *(Outcome(source(name), image=described(name, row)) for row, name in enumerate(names)))

    changed = catalog.set_metadata("file", {f"file:///{name}": {"row": int(name)} for name in names})

    assert changed == 1200
    assert catalog.ids_where(parse("row >= 1190")).tolist() == list(range(1191, 1201))


# --- with the places --------------------------------------------------------------------------------------------


def test_a_chunk_records_metadata_with_its_sources(catalog: Catalog) -> None:
    """In one transaction: a run that is killed has both or neither."""
    keep(
        catalog,
        Outcome(source("a"), image=described("x"), metadata={"exif": {"camera": "A"}}),
        Outcome(source("b"), known_hash="x", metadata={"exif": {"camera": "B", "iso": 100}}),
    )

    assert metadata(catalog) == {"camera": "A", "iso": 100}
    assert catalog.ids_where(parse("iso = 100")).tolist() == [1]
    assert catalog.check() == []


def test_a_place_takes_its_metadata_along_and_leaves_exif(twice: Catalog) -> None:
    """A table speaks of the place, EXIF of the content that was there."""
    twice.set_metadata("file", {A: {"title": "a"}})
    twice.set_metadata("exif", {A: {"camera": "A"}, B: {"camera": "B"}})

    keep(twice, Outcome(source("a", modified_ns=2), image=described("z")))

    assert metadata(twice, 1) == {"camera": "B"}
    assert metadata(twice, 3) == {"title": "a"}
    assert twice.check() == []


def test_a_place_that_was_only_touched_keeps_all_its_metadata(twice: Catalog) -> None:
    """The content is the same."""
    twice.set_metadata("exif", {A: {"camera": "A"}})

    keep(twice, Outcome(source("a", modified_ns=2), known_hash="x"))

    assert metadata(twice) == {"camera": "A"}


def test_an_image_found_again_has_its_metadata_anew(twice: Catalog) -> None:
    """A forgotten place takes its metadata with it; the new one brings its own."""
    twice.set_metadata("file", {"file:///c": {"title": "old"}})
    twice.forget_sources(["file:///c"])
    forgotten = metadata(twice, 2)

    keep(twice, Outcome(source("d"), known_hash="y", metadata={"file": {"title": "new"}}))

    assert forgotten == {}
    assert metadata(twice, 2) == {"title": "new"}
    assert twice.ids_where(parse("title:*")).tolist() == [2]


def test_a_removed_image_keeps_its_metadata_for_its_return(twice: Catalog) -> None:
    """It can be filtered by in its state, and is there when it is restored."""
    twice.set_metadata("file", {A: {"title": "a"}})
    twice.remove([1])

    found = twice.ids_where(parse("title = a"), state="removed").tolist()
    twice.restore([1])

    assert found == [1]
    assert metadata(twice) == {"title": "a"}
