"""Places of images: which of them exist, how they are spelled in filters, and how they move."""

from collections.abc import Mapping
from unicodedata import normalize

import pytest
from alembic import command

from tests.cataloguing import described, failed, keep, migrate, raw, source
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.database import CatalogAddress
from whatwhere.indexer.catalog.records import Outcome
from whatwhere.indexer.catalog.relocation import SourceMove
from whatwhere.indexer.errors import CollectionCorrupt
from whatwhere.indexer.metadata.filters import parse

COMPOSED, DECOMPOSED = "M\u00fcller", "Mu\u0308ller"
NAMES = ("a%20b.jpg", "M%C3%BCller/Mu%CC%88ller.jpg", "x%40y%231%3F.jpg", "50%2520off.jpg", "photo%20%5B1%5D.jpg")


def uris(catalog: Catalog) -> dict[int, tuple[str, ...]]:
    return {image.id: image.uris for image in catalog.images()}


def spelled(catalog: Catalog) -> None:
    """Record images 1 to 5 with names that are spelled in several ways."""
    keep(catalog, *(Outcome(source(name), image=described(name, row)) for row, name in enumerate(NAMES)))


# --- spelling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('uri = "/a b.jpg"', [1]),
        ('uri = "file:///a b.jpg"', [1]),
        ('uri = "file:///a%20b.jpg"', [1]),
        ("uri = /a*", [1]),
        ('uri = "*a b*"', [1]),
        ('uri = "*%20b*"', [1]),
        (f'uri = "/{COMPOSED}/{DECOMPOSED}.jpg"', [2]),
        (f'uri = "*/{DECOMPOSED}.jpg"', [2]),
        (f'uri : "{DECOMPOSED}"', []),
        ('uri = "/x@y#1?.jpg"', [3]),
        ('uri = "/50%20off.jpg"', [4]),
        ('uri = "/50 off.jpg"', []),
        ('uri != "/a b.jpg"', [2, 3, 4, 5]),
        ('uri >= "/x"', [3]),
        ('uri = "file:*"', [1, 2, 3, 4, 5]),
        ("uri:*", [1, 2, 3, 4, 5]),
    ],
)
def test_filters_compare_uris_as_people_read_them(catalog: Catalog, text: str, found: list[int]) -> None:
    """Paths and URIs, encoded or not, in either normalization form."""
    spelled(catalog)

    assert catalog.ids_where(parse(text)).tolist() == found


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("/a ?.jpg", [1]),
        ("file:///a%20b.jpg", [1]),
        (f"*/{COMPOSED}/*", [2]),
        ("*[@]y#1*", [3]),
        ("/photo [1].jpg", [5]),
        ("/PHOTO*", []),
    ],
)
def test_patterns_compare_uris_as_people_read_them(catalog: Catalog, glob: str, found: list[int]) -> None:
    """A name with brackets matches itself."""
    spelled(catalog)

    assert catalog.ids_of_uris(glob).tolist() == found


def test_texts_of_both_normalization_forms_are_equal(catalog: Catalog) -> None:
    """In values, in names and in filters; what is shown stays as it was written."""
    keep(catalog, *(Outcome(source(name), image=described(name, row)) for row, name in enumerate("ab")))
    catalog.set_metadata("file", {"file:///a": {"name": DECOMPOSED, DECOMPOSED: 1}, "file:///b": {"name": COMPOSED}})

    for text in (COMPOSED, DECOMPOSED):
        assert catalog.ids_where(parse(f'name = "{text}"')).tolist() == [1, 2]
        assert catalog.ids_where(parse(f'name = "{text[:-1]}*"')).tolist() == [1, 2]
        assert catalog.ids_where(parse(f'metadata."{text}" = 1')).tolist() == [1]
    assert catalog.images()[0].user_metadata == {"name": DECOMPOSED, DECOMPOSED: 1}
    assert catalog.check() == []


def test_an_older_schema_comes_up_with_readable_uris_and_one_form(address: CatalogAddress) -> None:
    """Rows keep their checksums; texts for filters are normalized, those of images are not touched."""
    with Catalog.create(address) as catalog:
        spelled(catalog)
        catalog.set_metadata("file", {f"file:///{NAMES[0]}": {"name": COMPOSED, COMPOSED: 1}})
        catalog.mark_vanished([f"file:///{NAMES[1]}"], ())
    migrate(address, command.downgrade, "0002")
    for column in ("name", "text_value"):
        raw(address, f"UPDATE properties SET {column} = '{DECOMPOSED}' WHERE {column} = '{COMPOSED}'")

    with Catalog.create(address) as catalog:
        faults = catalog.check()
        found = [catalog.ids_where(parse(text)).tolist() for text in ('uri = "/a b.jpg"', f'name = "{COMPOSED}"')]

    assert faults == []
    assert found == [[1], [1]]


# --- vanished -----------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(catalog: Catalog) -> Catalog:
    """Give image 1 at /old/a, /new/a and /more/a, and image 2 at /old/b."""
    keep(catalog, Outcome(source("old/a"), image=described("a")), Outcome(source("old/b"), image=described("b", 1)))
    keep(catalog, *(Outcome(source(f"{folder}/a"), known_hash="a") for folder in ("new", "more")))
    return catalog


def test_living_places_come_first(copied: Catalog) -> None:
    """Each in the order of recording; an image whose places are all gone keeps them."""
    copied.mark_vanished(["file:///old/a", "file:///old/b"], ())

    first, second = copied.images()
    assert first.uris == ("file:///new/a", "file:///more/a", "file:///old/a")
    assert (first.vanished_uris, second.uris, second.state) == (("file:///old/a",), ("file:///old/b",), "indexed")
    assert copied.check() == []


def test_a_place_that_is_seen_again_is_alive(copied: Catalog) -> None:
    """By a run's search, or by reading it."""
    copied.mark_vanished(["file:///old/a", "file:///new/a", "file:///more/a"], ())
    copied.mark_vanished(["file:///more/a"], {"file:///new/a", "file:///more/a"})
    keep(copied, Outcome(source("old/a"), known_hash="a"))

    assert copied.images()[0].vanished_uris == ("file:///more/a",)


def test_copies_elsewhere_are_those_that_count_as_alive(copied: Catalog) -> None:
    """Only of images that were seen."""
    copied.mark_vanished(["file:///more/a"], ())

    assert copied.copies_elsewhere({"file:///new/a"}) == ["file:///old/a"]
    assert copied.copies_elsewhere({"file:///old/b"}) == []
    assert copied.copies_elsewhere({"file:///new/a", "file:///old/a"}) == []


def test_images_that_only_some_places_have_are_counted(copied: Catalog) -> None:
    """A place that is known to be gone does not count."""
    every = ["file:///old/a", "file:///old/b", "file:///new/a"]

    assert copied.count_only_at(every) == 1
    copied.mark_vanished(["file:///more/a"], ())
    assert copied.count_only_at(every) == 2


# --- moved --------------------------------------------------------------------------------------------------------


def moved(
    catalog: Catalog, renamed: Mapping[int, str], merged: Mapping[int, int | None] | None = None, **more: bool
) -> None:
    catalog.move_sources([SourceMove(id_, uri) for id_, uri in renamed.items()], merged or {}, **more)


def test_sources_get_new_uris(copied: Catalog) -> None:
    """With their readable form, metadata and checksum; a mark as vanished goes."""
    copied.set_metadata("sidecar", {"file:///old/b": {"label": "boat"}})
    copied.mark_vanished(["file:///old/a"], ())
    before = [entry.id for entry in copied.sources_from("file:///old/")]

    moved(copied, {1: "file:///far/a%20b", 2: "s3://bucket/b"})

    assert before == [1, 2]
    assert uris(copied) == {1: ("file:///far/a%20b", "file:///new/a", "file:///more/a"), 2: ("s3://bucket/b",)}
    assert copied.ids_where(parse('uri = "/far/a b" OR label = boat')).tolist() == [1, 2]
    assert copied.check() == []


def test_a_source_that_does_not_exist_there_stays_vanished(copied: Catalog) -> None:
    """And one whose stamp means nothing at its new place is read again."""
    copied.mark_vanished(["file:///old/b"], ())

    copied.move_sources([SourceMove(1, "s3://b/a", same_stamp=False), SourceMove(2, "s3://b/b", exists=False)], {})

    assert [image.vanished_uris for image in copied.images()] == [(), ("s3://b/b",)]
    assert copied.unchanged([source("old/a").__class__("s3://b/a", 10, 1)]) == set()
    assert copied.check() == []


def test_a_merged_source_leaves_its_metadata_behind(copied: Catalog) -> None:
    """What its heir says itself has precedence."""
    copied.set_metadata("sidecar", {"file:///old/a": {"label": "boat"}, "file:///new/a": {"rating": 5}})
    copied.set_metadata("file", {"file:///old/a": {"year": 1990}})

    moved(copied, {}, {1: 3, 2: None})

    one, two = copied.images()
    assert one.uris == ("file:///new/a", "file:///more/a")
    assert one.user_metadata == {"rating": 5, "year": 1990}
    assert (two.state, two.uris) == ("removed", ())
    assert copied.check() == []


def test_sources_may_change_places(catalog: Catalog) -> None:
    """A new URI that another source still has is no obstacle."""
    keep(catalog, *(Outcome(source(name), image=described(name, row)) for row, name in enumerate(["x/a", "x/x/a"])))

    moved(catalog, {1: "file:///x/x/a", 2: "file:///x/x/x/a"}, overlapping=True)

    assert uris(catalog) == {1: ("file:///x/x/a",), 2: ("file:///x/x/x/a",)}
    assert catalog.check() == []


def test_damage_is_not_sealed_by_a_move(copied: Catalog, address: CatalogAddress) -> None:
    """Nothing is written: the other sources stay where they were."""
    raw(address, "UPDATE sources SET byte_count = 11 WHERE id = 2")

    with pytest.raises(CollectionCorrupt, match=r"source 2 of .* does not match its checksum"):
        moved(copied, {1: "file:///far/a", 2: "file:///far/b"})

    assert raw(address, "SELECT uri FROM sources WHERE id = 1") == [("file:///old/a",)]


def test_a_failed_file_has_a_place_too(catalog: Catalog) -> None:
    """It is listed without content."""
    keep(catalog, Outcome(source("old/torn"), image=failed(None)))

    (entry,) = catalog.sources_from("file:///old")
    assert (entry.uri, entry.content_hash, entry.vanished) == ("file:///old/torn", None, False)


def test_normal_forms_are_those_of_unicode() -> None:
    """What the other tests rely on."""
    assert normalize("NFC", DECOMPOSED) == COMPOSED != DECOMPOSED
