"""Filters on a catalogue, compared with what plain Python says of the same metadata."""

import operator
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.cataloguing import described, failed, keep, raw, source
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.database import CatalogAddress
from whatwhere.indexer.catalog.filtering import condition_of
from whatwhere.indexer.catalog.records import NewImage, Outcome
from whatwhere.indexer.errors import InvalidFilter
from whatwhere.indexer.metadata.filters import parse

Metadata = Mapping[str, object]
Predicate = Callable[[Metadata], bool]


def where(catalog: Catalog, text: str, state: str | None = "indexed") -> list[int]:
    """Return the ids that a filter lets through."""
    return catalog.ids_where(parse(text), state=state).tolist()


def stored(catalog: Catalog, *images: Metadata) -> None:
    """Record images of this metadata, with the ids from 1 on."""
    keep(catalog, *(Outcome(source(f"{row}"), image=described(f"{row}", row)) for row in range(len(images))))
    catalog.set_metadata("file", {f"file:///{row}": image for row, image in enumerate(images)})


# --- against plain Python ---------------------------------------------------------------------------------------

MAY = datetime(2024, 5, 1, tzinfo=UTC)
TIMES = {
    "2024-05-01": MAY,
    "2024-05-01T00:00:00Z": MAY,
    "2024-05-01T02:00:00+02:00": MAY,
    "2023-12-31T23:59:59.5Z": datetime(2023, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC),
    "2025-01-01": datetime(2025, 1, 1, tzinfo=UTC),
}
TEXTS = ("boat", "Boat", "boathouse", "", "zebra", "é", "😀", "\uffff", "5", "true", "bo*at", "o'clock", 'a "b" \\')
NUMBERS = (5, 5.0, -3, 2.5, 0, 10**15)
# Float64 lacks some of them; of each the neighbors, which it would take for equal.
LONG_NUMBERS = (2**53, 2**53 + 1, float(2**53), -(2**53) - 1, 2**62 + 1, 2**62, 2**63 - 1, float(2**63), -(2**63))
NAMES = ("label", "tags", "year", "place", "place.city", "place.zip", "a.b", "odd name", "missing")
WRITTEN_NAMES = {"odd name": 'metadata."odd name"', "a.b": "metadata.'a.b'"}
COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def values_at(value: object, name: str) -> Iterator[object]:
    """Yield what metadata has under a dotted name, elements of lists one by one."""
    if isinstance(value, list):
        for element in value:
            yield from values_at(element, name)
    elif isinstance(value, dict) and not name:
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if name == key:
                yield from values_at(inner, "")
            elif name.startswith(f"{key}."):
                yield from values_at(inner, name.removeprefix(f"{key}."))
    elif value is not None and not name:
        yield value


def scalars_at(metadata: Metadata, name: str) -> list[object]:
    return [value for value in values_at(dict(metadata), name) if not isinstance(value, dict)]


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def text_predicate(generator: random.Random, name: str) -> tuple[str, Predicate]:
    """Return a comparison with quoted text, and what it means."""
    text = generator.choice([*TEXTS, *TIMES])
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*") + '"'
    moment = TIMES.get(text)
    chosen = generator.choice(["=", "!=", ":", *COMPARE])

    def equal(value: object) -> bool:
        return value == text or (moment is not None and isinstance(value, str) and TIMES.get(value) == moment)

    def ordered(value: object) -> bool:
        if not isinstance(value, str):
            return False
        if moment is not None and value in TIMES:
            return bool(COMPARE[chosen](TIMES[value], moment))
        return bool(COMPARE[chosen](value, text))

    def predicate(metadata: Metadata) -> bool:
        found = list(values_at(dict(metadata), name))
        if chosen == "!=":
            there = any(value for value in found if isinstance(value, dict)) or bool(scalars_at(metadata, name))
            return there and not any(map(equal, scalars_at(metadata, name)))
        if chosen == ":":
            members = {key for value in found if isinstance(value, dict) for key in value}
            return text in members or any(map(equal, scalars_at(metadata, name)))
        return any(map(equal if chosen == "=" else ordered, scalars_at(metadata, name)))

    return f"{WRITTEN_NAMES.get(name, name)} {chosen} {quoted}", predicate


def number_predicate(generator: random.Random, name: str) -> tuple[str, Predicate]:
    """Return a comparison with a bare number, and what it means."""
    number = generator.choice([*NUMBERS, 4, *LONG_NUMBERS])
    chosen = generator.choice(["=", *COMPARE])

    def holds(value: object) -> bool:
        if chosen == "=":
            return (is_number(value) and value == number) or value == str(number)
        return is_number(value) and bool(COMPARE[chosen](value, number))

    return (
        f"{WRITTEN_NAMES.get(name, name)} {chosen} {number}",
        lambda metadata: any(map(holds, scalars_at(metadata, name))),
    )


def boolean_predicate(generator: random.Random, name: str) -> tuple[str, Predicate]:
    """Return a comparison with true or false, and what it means."""
    chosen = generator.choice([True, False])
    word = str(chosen).lower()
    return (
        f"{WRITTEN_NAMES.get(name, name)}={word}",
        lambda metadata: any(value is chosen or value == word for value in scalars_at(metadata, name)),
    )


def open_predicate(generator: random.Random, name: str) -> tuple[str, Predicate]:
    """Return a comparison with open text, and what it means."""
    part = generator.choice(["boat", "b", "oa", "at", "2024-", "😀", "house", "é"])
    pattern, holds = generator.choice(
        [
            (f'"{part}*"', lambda text: text.startswith(part)),
            (f"*{part}", lambda text: text.endswith(part)),
            (f'"*{part}*"', lambda text: part in text),
            ('"*"', lambda text: True),
        ]
    )
    return (
        f"{WRITTEN_NAMES.get(name, name)} = {pattern}",
        lambda metadata: any(isinstance(value, str) and holds(value) for value in scalars_at(metadata, name)),
    )


def presence_predicate(generator: random.Random, name: str) -> tuple[str, Predicate]:
    """Return the question whether a name is there, and what it means: empty objects and lists are not."""
    return (
        f"{WRITTEN_NAMES.get(name, name)}:*",
        lambda metadata: any(value != {} for value in values_at(dict(metadata), name)),
    )


def any_predicate(generator: random.Random, depth: int) -> tuple[str, Predicate]:
    """Return a random filter and what it means."""
    if depth == 0 or generator.random() < 0.3:
        make = generator.choice(
            [text_predicate, text_predicate, number_predicate, boolean_predicate, open_predicate, presence_predicate]
        )
        return make(generator, generator.choice(NAMES))
    first, first_holds = any_predicate(generator, depth - 1)
    if generator.random() < 0.3:
        return f"NOT ({first})", lambda metadata: not first_holds(metadata)
    second, second_holds = any_predicate(generator, depth - 1)
    if generator.random() < 0.5:
        return f"({first}) OR ({second})", lambda metadata: first_holds(metadata) or second_holds(metadata)
    return f"({first}) AND ({second})", lambda metadata: first_holds(metadata) and second_holds(metadata)


def any_value(generator: random.Random, depth: int = 2) -> object:
    if depth and generator.random() < 0.3:
        return [any_value(generator, depth - 1) for _ in range(generator.randrange(4))]
    return generator.choice([*TEXTS, *TIMES, *NUMBERS, *LONG_NUMBERS, True, False, None])


def any_metadata(generator: random.Random) -> dict[str, object]:
    made: dict[str, object] = {
        name: any_value(generator)
        for name in ("label", "tags", "year", "odd name", "a.b", "place.zip")
        if generator.random() < 0.7
    }
    if generator.random() < 0.5:
        made["place"] = {key: any_value(generator) for key in ("city", "zip", "boat") if generator.random() < 0.6}
    elif generator.random() < 0.5:
        made["place"] = [{"city": any_value(generator)}, any_value(generator)]
    return made


def test_every_filter_lets_through_what_plain_python_does(catalog: Catalog) -> None:
    """Three hundred random filters on random metadata of all kinds agree with a plain evaluation of their meaning."""
    generator = random.Random(4)
    images = [any_metadata(generator) for _ in range(150)]
    stored(catalog, *images)
    some = 0

    for _ in range(300):
        text, holds = any_predicate(generator, 3)
        expected = [number for number, image in enumerate(images, start=1) if holds(image)]
        assert where(catalog, text) == expected, text
        some += 0 < len(expected) < len(images)

    assert some > 150


# --- one rule at a time -----------------------------------------------------------------------------------------


def found(catalog: Catalog, rows: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Return what each filter of a table lets through, to be compared with the table."""
    return {text: where(catalog, text) for text in rows}


def test_types_are_kept(catalog: Catalog) -> None:
    """A number meets numbers and the same text; a name that is not there meets nothing, != neither."""
    stored(catalog, {"year": 1990}, {"year": "1990"}, {"year": 1991}, {"year": True}, {})

    rows = {
        "year = 1990": [1, 2],
        'year = "1990"': [2],
        "year < 1991": [1],
        "year != 1990": [3, 4],
        "NOT year = 1990": [3, 4, 5],
        "year:*": [1, 2, 3, 4],
        "NOT year:*": [5],
        "metadata.year = 1990": [1, 2],
        "missing != 1": [],
        "missing < 1 OR missing >= 1": [],
        "year = true": [4],
        "Year = 1990": [],
    }
    assert found(catalog, rows) == rows


def test_neighboring_ids_are_two(catalog: Catalog) -> None:
    """Numbers of 64 bits are compared exactly with one another, with floats, and with what exceeds them."""
    numbers = [2**53, 2**53 + 1, float(2**53), 2**63 - 1, 2**63 - 2, -(2**63), 2**64, 7, True, str(2**53 + 1)]
    stored(catalog, *({"id": number} for number in numbers))

    rows = {
        f"id = {2**53}": [1, 3],
        f"id = {2**53 + 1}": [2, 10],
        f"id != {2**53 + 1}": [1, 3, 4, 5, 6, 7, 8, 9],
        f"id > {2**53}": [2, 4, 5, 7],
        f"id >= {2**53 + 1}": [2, 4, 5, 7],
        f"id < {2**53 + 1}": [1, 3, 6, 8],
        f"id <= {2**53 + 1}": [1, 2, 3, 6, 8],
        f"id = {2**63 - 1}": [4],
        f"id < {2**63 - 1}": [1, 2, 3, 5, 6, 8],
        f"id >= {2**63}": [7],
        f"id = {2**63}": [],
        f"id < {2**63}": [1, 2, 3, 4, 5, 6, 8],
        f"id <= {-(2**63)}": [6],
        f"id < {-(2**63)}": [],
        f"id > {-(2**64)}": [1, 2, 3, 4, 5, 6, 7, 8],
        f'id = "{2**53 + 1}"': [10],
    }
    assert found(catalog, rows) == rows


def test_times_are_compared_as_moments(catalog: Catalog) -> None:
    """Zones and fractions count; with what is no whole time, on either side, they are compared as text."""
    stored(
        catalog,
        {"taken": "2024-05-01"},
        {"taken": "2024-05-01T02:00:00+02:00"},
        {"taken": "2024-05-01T00:00:01.5Z"},
        {"taken": "yesterday"},
    )

    rows = {
        'taken > "2024-05-01"': [3, 4],
        'taken >= "2024-05-01"': [1, 2, 3, 4],
        'taken = "2024-05-01T01:00:00+01:00"': [1, 2],
        "taken = 2024-05-01": [1, 2],
        'taken < "2024-05-01T00:00:01Z"': [1, 2],
        'taken > "2024-05-01" AND taken < "2025-01-01"': [3],
        'taken = "2024-05-01*"': [1, 2, 3],
        'taken >= "2024-05"': [1, 2, 3, 4],
    }
    assert found(catalog, rows) == rows


@pytest.fixture
def images(address: CatalogAddress, catalog: Catalog) -> Catalog:
    """Give three images of which the fields differ, a failed one, and one more URI of the first."""
    keep(
        catalog,
        Outcome(source("Folder/cat.jpg"), image=NewImage("aa", 1000, 640, 480, "image/jpeg", 0)),
        Outcome(source("folder/dog.png"), image=NewImage("bb", 2000, 800, 600, "image/png", 1)),
        Outcome(source("folder/50%25_off.jpg"), image=NewImage("cc", 3000, 1024, 768, "image/jpeg", 2)),
        Outcome(source("never-readable"), image=failed(None)),
        Outcome(source("copy/cat.jpg"), known_hash="aa"),
    )
    for id_, created_at in enumerate(("05-01 12:00:00.000000", "05-01 12:00:00.500000", "06-01 00:00:00.000000"), 1):
        raw(address, f"UPDATE images SET created_at = '2024-{created_at}' WHERE id = {id_}")
    catalog.set_metadata("file", {"file:///folder/dog.png": {"width_px": 1, "uri": "x"}})
    return catalog


def test_the_fields_of_an_image_can_be_compared(images: Catalog) -> None:
    """Size, bytes, type, content, places and time are fields; letter case counts, % and _ are what they are."""
    rows = {
        "width_px > 640 AND height_px <= 600": [2],
        "width_px = 1": [],
        "metadata.width_px = 1": [2],
        "metadata.uri = x": [2],
        "byte_count >= 2000": [2, 3],
        "byte_count != 2000": [1, 3],
        'mime_type = "image/*"': [1, 2, 3],
        "mime_type != image/png": [1, 3],
        "sha256 = aa": [1],
        "sha256 > aa": [2, 3],
        'uri = "file:///folder/*"': [2, 3],
        'uri = "*cat.jpg"': [1],
        'uri = "file:///copy/cat.jpg"': [1],
        'uri != "file:///copy/cat.jpg"': [2, 3],
        'uri = "*0%25_o*"': [3],
        'uri = "*0%25xo*"': [],
        'uri > "file:///a"': [1, 2, 3],
        "uri:*": [1, 2, 3],
        "width_px:*": [1, 2, 3],
        'create_time = "2024-05-01T12:00:00Z"': [1],
        'create_time > "2024-05-01T12:00:00Z" AND create_time < "2024-06-01"': [2],
        'create_time >= "2024-06-01"': [3],
    }
    assert found(images, rows) == rows


def test_state_bounds_a_filter_and_not_is_the_complement(images: Catalog) -> None:
    """Where nothing is known, a comparison is not met and NOT is."""
    rows: dict[tuple[str, str | None], list[int]] = {
        ("byte_count > 0", None): [1, 2, 3, 4],
        ("byte_count > 0", "failed"): [4],
        ("byte_count > 0", "removed"): [],
        ("sha256:*", None): [1, 2, 3],
        ("sha256 != aa", None): [2, 3],
        ("NOT sha256 = aa", None): [2, 3, 4],
        ("NOT sha256 > aa", None): [1, 4],
    }
    assert {(text, state): where(images, text, state) for text, state in rows} == rows


def test_an_image_without_a_place_has_no_uri(images: Catalog) -> None:
    """A comparison with the URI of what lost its source is not met, != neither."""
    images.forget_sources(["file:///folder/dog.png"])

    assert where(images, "uri != x", "removed") == []
    assert where(images, "NOT uri = x", "removed") == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('width_px = "640"', "width_px is a number, but '640' is not"),
        ("height_px > tall", "height_px is a number, but 'tall' is not"),
        ("byte_count = 1*", r"byte_count is a number, but '1\*' is not"),
        ("create_time > 5", "create_time is a time such as \"2024-01-31T12:00:00Z\", but '5' is not"),
        ('create_time > "2024-02-31"', "create_time is a time"),
    ],
)
def test_a_value_of_another_kind_than_the_field_is_refused(catalog: Catalog, text: str, message: str) -> None:
    """What could never be met is an error that names field and value."""
    with pytest.raises(InvalidFilter, match=message):
        where(catalog, text)


@pytest.mark.parametrize(
    "text",
    [
        'label = "\'; DROP TABLE images; --"',
        'uri = "*%\'; DROP TABLE images; --"',
        'metadata."x\' OR 1=1 --" < "x"',
        "sha256 != \"' OR ''='\"",
    ],
)
def test_every_value_is_bound(catalog: Catalog, text: str) -> None:
    """What a caller writes stands in the parameters and never in the statement."""
    stored(catalog, {"label": "boat"})

    statement = str(condition_of(parse(text)))
    where(catalog, text)

    assert "DROP" not in statement
    assert "OR 1=1" not in statement
    assert "''" not in statement
    assert catalog.counts()["indexed"] == 1


def test_a_pattern_is_of_whole_uris(images: Catalog) -> None:
    """Shell patterns match whole URIs, letter case counts, an image with two matching places comes once."""
    rows = {
        "file:///folder/*": [2, 3],
        "*cat.jpg": [1],
        "file:///[Ff]older/???.*": [1, 2],
        "*.JPG": [],
        "cat.jpg": [],
        "*": [1, 2, 3],
        "[": [],
    }
    chosen = {glob: images.ids_of_uris(glob) for glob in rows}

    assert {ids.dtype for ids in chosen.values()} == {np.dtype(np.int64)}
    assert {glob: ids.tolist() for glob, ids in chosen.items()} == rows


def test_a_pattern_is_of_one_state_or_of_all(images: Catalog) -> None:
    """State None looks at every image."""
    assert images.ids_of_uris("*readable", state=None).tolist() == [4]
    assert images.ids_of_uris("*readable").tolist() == []


def test_the_largest_filter_runs(catalog: Catalog) -> None:
    """A filter at every limit is within the database's own."""
    stored(catalog, {"label": "boat"}, {"label": "cat"})
    pairs = " ".join(f"(label != x{number} OR label = boat)" for number in range(64))
    nested = "(" * 30 + "NOT (" + pairs + ")" + ")" * 30

    assert where(catalog, nested) == []
    assert where(catalog, pairs) == [1, 2]


@pytest.mark.parametrize(
    ("text", "searched"),
    [
        ("label = boat", ["(name=? AND text_value=?)"]),
        ("year = 1990", ["(name=? AND text_value=?)", "(name=? AND number_value=?)"]),
        ("year < 1990", ["(name=? AND number_value<?)"]),
        ("year > 9007199254740993", ["(name=? AND number_value>?)"]),
        ('label = "x" OR year > 5', ["(name=? AND text_value=?)", "(name=? AND number_value>?)"]),
    ],
)
def test_comparisons_search_an_index(path: Path, catalog: Catalog, text: str, searched: list[str]) -> None:
    """No comparison reads all values of a name where an index knows the ones that are asked for."""
    condition = condition_of(parse(text)).compile(catalog._engine, compile_kwargs={"literal_binds": True})

    plan = raw(path, f"EXPLAIN QUERY PLAN SELECT id FROM images WHERE {condition}")

    steps = [str(detail) for *_, detail in plan if "properties" in str(detail)]
    assert [step[step.index("(") :] for step in steps] == searched
