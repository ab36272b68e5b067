"""Filters on what stands beside vectors: they let through what the catalogue does, here and in Milvus."""

import random
import re
from collections.abc import Iterator

import numpy as np
import pytest

from tests.milvus import MilvusLite
from tests.unit.indexer.catalog.test_filtering import any_metadata, any_predicate, stored
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.catalog.records import ImageRecord
from whatwhere.indexer.collection.pushdown import condition_of, facts_of
from whatwhere.indexer.metadata.filters import parse
from whatwhere.indexer.vectors.address import MilvusAddress
from whatwhere.indexer.vectors.conditions import Facts, holds, milvus_expression, ordered_number, ordered_text
from whatwhere.indexer.vectors.milvus import MilvusServer, MilvusStore
from whatwhere.indexer.vectors.store import Delta, Generation, Index, VectorSource

IMAGES = 120
ODD = (
    'say "x"',
    "it's",
    "back\\slash",
    "new\nline",
    "tab\there",
    "é😀",
    '"] or image >= 0 or ["',
    "\\",
    "%_*",
    "{x}",
    "' or '",
)
FIELD_FILTERS = (
    "width_px > 10 AND height_px <= 20",
    "width_px = 640",
    "width_px != 640",
    "NOT width_px > 639.5",
    "byte_count >= 10",
    "byte_count:*",
    'mime_type = "image/jpeg"',
    "mime_type != image/jpeg",
    "mime_type < image/k",
    "mime_type:*",
    'uri = "file:///3"',
    'uri != "file:///3"',
    'NOT uri = "file:///3"',
    'uri > "file:///5"',
    'NOT uri > "file:///5"',
    "uri:*",
    "sha256 = 7",
    "sha256 >= 7",
    'create_time > "2020-01-01"',
    'create_time <= "2020-01-01"',
    'NOT create_time = "2020-01-01T00:00:00Z"',
    "metadata.width_px = 1",
    "missing != 1",
    "NOT missing > 1",
    "NOT missing:*",
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Give a catalogue of images with metadata of all kinds."""
    generator = random.Random(9)
    with Catalog.create(tmp_path_factory.mktemp("catalog") / "catalog.db") as opened:
        odd = [{"odd": text, "odds": [text, "other"], text: 1} for text in ODD]
        long = [{"label": "x" * 200}, {"label": "x" * 63 + "z"}, {"numbers": [0.0, -0.0, 1e300, -1e-300, 2**53]}]
        stored(opened, *odd, *long, *(any_metadata(generator) for _ in range(IMAGES - len(odd) - len(long))))
        yield opened


@pytest.fixture(scope="module")
def images(catalog: Catalog) -> list[ImageRecord]:
    """Give the images of the catalogue."""
    return catalog.images()


@pytest.fixture(scope="module")
def index(images: list[ImageRecord], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Give an index in Milvus of a vector for each image, with its facts."""
    by_id = {image.id: facts_of(image) for image in images}
    ids = np.array(sorted(by_id), dtype=np.int64)
    vectors = np.eye(len(ids), dtype=np.float32)
    origin = VectorSource(
        "what", len(ids), lambda some: iter([vectors[some - 1]]), lambda some: [by_id[image] for image in some.tolist()]
    )
    with MilvusLite(tmp_path_factory.mktemp("milvus")) as milvus:
        store = MilvusStore(MilvusServer(MilvusAddress.parse(milvus.address())), "whatwhere_facts")
        held = store.write(origin, Delta(1, ids), None)
        yield store.open(held, Generation(1, np.empty(0, dtype=np.int64), ids))


def odd_filters() -> list[str]:
    """Return filters with texts that would end a quote, or a statement, or stand for others."""
    quoted = ['"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*") + '"' for text in ODD]
    shapes = ("odd = {}", "odd != {}", "odds:{}", "odd < {}", "NOT odd >= {}", "odds > {}", "metadata.{} = 1")
    return [shape.replace("{}", text) for text in quoted for shape in shapes]


def random_filters(seed: int, count: int) -> list[str]:
    generator = random.Random(seed)
    return [any_predicate(generator, 3)[0] for _ in range(count)]


def test_filters_mean_what_they_mean_to_the_catalog(catalog: Catalog, images: list[ImageRecord]) -> None:
    """Five hundred random ones, those of fields, and those with odd texts; most of them need no catalogue."""
    facts = {image.id: facts_of(image) for image in images}
    texts = [*FIELD_FILTERS, *odd_filters(), *random_filters(3, 500)]
    answered = 0

    for text in texts:
        condition = condition_of(parse(text))
        if condition is not None:
            answered += 1
            found = [image_id for image_id, known in facts.items() if holds(condition, known)]
            assert found == catalog.ids_where(parse(text)).tolist(), text

    assert answered > 0.4 * len(texts)


def test_milvus_lets_through_what_the_catalog_does(catalog: Catalog, index: Index) -> None:
    """The same on a server: fields, odd texts, and two hundred random ones that it can answer."""
    query = np.full(IMAGES, IMAGES**-0.5, dtype=np.float32)
    conditions = {text: condition_of(parse(text)) for text in [*FIELD_FILTERS, *odd_filters(), *random_filters(5, 400)]}
    answered = 0

    for text, condition in conditions.items():
        if condition is not None:
            answered += 1
            found = sorted(index.search(query, IMAGES, condition)[1].tolist())
            assert found == catalog.ids_where(parse(text)).tolist(), text

    assert answered > 200


@pytest.mark.parametrize(
    "text", ["label = boat*", "label:*oat", "uri = *jpg", f"label < {'x' * 64}", "width_px = wide"]
)
def test_what_tokens_and_bounds_cannot_say_is_left_to_the_catalog(text: str) -> None:
    """Parts of texts, texts longer than what is kept of them, and what it refuses; a part makes it the whole filter."""
    assert condition_of(parse(text)) is None
    assert condition_of(parse(f"year = 5 OR NOT ({text})")) is None


def test_nothing_of_a_filter_stands_in_the_expression() -> None:
    """Whatever a caller writes, values are hexadecimal digits."""
    conditions = {text: condition_of(parse(text)) for text in odd_filters()}

    quoted = {
        text: milvus_expression(found).split('"')[1::2] for text, found in conditions.items() if found is not None
    }
    others = {
        text: [part for part in parts if re.fullmatch("(low_)?(high_)?[0-9a-f]*", part) is None]
        for text, parts in quoted.items()
    }

    assert [text for text, found in conditions.items() if found is None] == []
    assert {text: parts for text, parts in others.items() if parts} == {}


def test_the_order_of_numbers_and_of_texts_is_kept() -> None:
    """Of negative ones too, and of zeros that are equal; of texts by code point, up to where they are cut."""
    long = [2**53, 2**53 + 1, 2**53 + 2, 2**62 + 1, 2**63 - 2, 2**63 - 1]
    numbers = [-1e300, *(-number for number in long[::-1]), -2.5, -1, -1e-300, 0.0, 1e-300, 1, 2.5, *long, 1e300]
    texts = ["", "A", "Z", "a", "aa", "b", "é", "\uffff", "😀"]

    assert sorted(numbers) == numbers
    assert [ordered_number(value) for value in numbers] == sorted({ordered_number(value) for value in numbers})
    assert ordered_number(-0.0) == ordered_number(0.0)
    assert ordered_number(2**53) == ordered_number(float(2**53))
    assert [ordered_text(text) for text in texts] == sorted({ordered_text(text) for text in texts})
    assert ordered_text("x" * 64 + "a") == ordered_text("x" * 64 + "b")


def test_facts_that_differ_have_other_digests(images: list[ImageRecord]) -> None:
    """None of the images is like another; the same facts have the same."""
    digests = {facts_of(image).digest for image in images}

    assert len(digests) == IMAGES
    assert facts_of(images[0]).digest == facts_of(images[0]).digest


def test_more_facts_than_a_store_takes_are_known_as_such() -> None:
    """By their number, or by the room they need."""
    many = tuple(f"{number:032x}" for number in range(4097))

    assert Facts(many[:4096]).fit
    assert not Facts(many).fit
    assert not Facts((), dict.fromkeys(many[:60], ("0" * 512, "1" * 512))).fit
