"""Requests are checked field by field; page tokens belong to one request and one generation."""

import base64
import contextlib
import io
import json
import math

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.errors import (
    InvalidFilter,
    InvalidPageToken,
    InvalidRegion,
    InvalidRequest,
    MissingQuery,
    PageTokenExpired,
    WhatwhereError,
)
from whatwhere.indexer.features.names import DESCRIPTORS
from whatwhere.indexer.features.regions import Area, Region
from whatwhere.indexer.metadata.filters import parse
from whatwhere.service.api import page_tokens, requests, responses
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.search.searcher import Query
from whatwhere.service.settings import Limits

GENERATION = 7


def to_query(request: pb.SearchImagesRequest) -> object:
    return requests.to_query(request, Limits(), GENERATION)


def test_a_minimal_request_gets_the_documented_defaults() -> None:
    """Ten results, by the best that the collection has, no expansion, no boxes, from the start."""
    query = requests.to_query(pb.SearchImagesRequest(image="images/12"), Limits(), GENERATION)

    assert (query.image_id, query.content, query.region) == (12, None, None)
    assert (query.descriptor, query.count, query.offset) == (None, 10, 0)
    assert (query.expansion_count, query.localize_count, query.exact, query.min_score) == (0, 0, False, None)
    assert query.filter is None


def test_every_field_arrives() -> None:
    """Nothing that a caller sets is dropped on the way."""
    request = pb.SearchImagesRequest(
        image_content=b"jpeg",
        region=pb.Box(x_min=0.1, y_min=0.2, x_max=0.3, y_max=0.4),
        descriptor=pb.DESCRIPTOR_R_MAC,
        page_size=25,
        expansion_count=5,
        localize_count=3,
        min_score=0.0,
        localization=pb.LOCALIZATION_EXACT,
        filter='label = "boat"',
        concepts=[2, 0],
        avoided_concepts=[1],
    )

    query = requests.to_query(request, Limits(), GENERATION)

    assert (query.content, query.region) == (b"jpeg", Box(0.1, 0.2, 0.3, 0.4))
    assert (query.descriptor, query.count, query.expansion_count) == ("r-mac", 25, 5)
    assert (query.localize_count, query.exact, query.min_score) == (3, True, 0.0)
    assert query.filter == parse('label = "boat"')
    assert (query.factors, query.avoided_factors) == ({0, 2}, {1})


@pytest.mark.parametrize(
    "request_",
    [pb.SearchImagesRequest(), pb.SearchImagesRequest(image_content=b""), pb.SearchImagesRequest(page_size=3)],
)
def test_an_empty_query_is_missing(request_: pb.SearchImagesRequest) -> None:
    """A oneof with nothing set arrives as unset, and empty content is no picture."""
    with pytest.raises(MissingQuery, match="image_content"):
        to_query(request_)


@pytest.mark.parametrize(
    "name", ["", "12", "images/", "images/0", "images/-1", "images/1/2", "images/١", "images/" + "9" * 30]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """Only images/{positive number} is a name."""
    with pytest.raises(InvalidRequest, match="images/12"):
        to_query(pb.SearchImagesRequest(image=name))


@pytest.mark.parametrize(
    ("sides", "field"),
    [
        ((0.5, 0.0, 0.5, 1.0), "region.x_min"),
        ((0.0, 0.9, 1.0, 0.1), "region.y_min"),
        ((-0.01, 0.0, 1.0, 1.0), "region.x_min"),
        ((0.0, 0.0, 1.01, 1.0), "region.x_max"),
        ((0.0, math.nan, 1.0, 1.0), "region.y_min"),
        ((0.0, 0.0, 1.0, math.inf), "region.y_max"),
        ((0.0, 0.0, 0.0, 0.0), "region.x_min"),
    ],
)
def test_a_box_that_is_none_is_refused_by_its_side(sides: tuple[float, ...], field: str) -> None:
    """Inverted, empty, outside and NaN each name the side at fault."""
    box = pb.Box(x_min=sides[0], y_min=sides[1], x_max=sides[2], y_max=sides[3])

    with pytest.raises(InvalidRegion) as raised:
        to_query(pb.SearchImagesRequest(image="images/1", region=box))

    assert raised.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("page_size", -1),
        ("expansion_count", -1),
        ("expansion_count", 21),
        ("localize_count", -5),
        ("localize_count", 21),
        ("min_score", 1.5),
        ("min_score", math.nan),
        ("descriptor", 99),
        ("localization", 99),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_field(field: str, value: float) -> None:
    """The error names the field, in the message and for programs."""
    with pytest.raises(InvalidRequest, match=field) as raised:
        to_query(pb.SearchImagesRequest(image="images/1", **{field: value}))

    assert raised.value.field == field


@pytest.mark.parametrize(("asked", "given"), [(0, 10), (1, 1), (100, 100), (101, 100), (2**31 - 1, 100)])
def test_a_page_is_clamped_not_refused(asked: int, given: int) -> None:
    """0 is the default and too many is the most there is."""
    assert requests.page_size(asked, 10, 100) == given


@pytest.mark.parametrize("text", ["label =", "(", '"unfinished', "a" * 4097])
def test_a_filter_that_is_none_is_refused(text: str) -> None:
    """Torn or longer than the limit: the error names the field."""
    with pytest.raises(InvalidFilter) as raised:
        to_query(pb.SearchImagesRequest(image="images/1", filter=text))

    assert raised.value.field == "filter"


def test_the_longest_filter_is_taken() -> None:
    """The limit counts characters, and itself is allowed."""
    text = f'label = "{"ä" * 4086}"'
    assert len(text) == Limits().max_filter_length

    assert requests.to_filter(text, Limits()) == parse(text)


def test_a_token_leads_to_its_page() -> None:
    """The page after ten results starts at ten, and after the last of them, if it names that one."""
    request, last = pb.SearchImagesRequest(image="images/1"), (0.123456001043319702, 7)
    of_request = page_tokens.search_fingerprint(request, "")
    found = []
    for parts in ((), (last,)):
        request.page_token = page_tokens.make_token(10, of_request, GENERATION, "", *parts)
        query = requests.to_query(request, Limits(), GENERATION)
        found.append((query.offset, query.after))

    assert found == [(10, None), (10, last)]


@pytest.mark.parametrize(
    "change",
    [
        {"image": "images/2"},
        {"min_score": 0.5},
        {"expansion_count": 1},
        {"descriptor": pb.DESCRIPTOR_WHAT},
        {"filter": "year = 1990"},
    ],
)
def test_a_token_of_another_search_is_refused(change: dict[str, object]) -> None:
    """Whatever changes the order of the results ends the token's life."""
    token = page_tokens.make_token(
        10, page_tokens.search_fingerprint(pb.SearchImagesRequest(image="images/1"), ""), GENERATION
    )

    with pytest.raises(InvalidPageToken) as raised:
        to_query(pb.SearchImagesRequest(**({"image": "images/1"} | change), page_token=token))

    assert raised.type is InvalidPageToken


@pytest.mark.parametrize("made_on", [GENERATION - 1, GENERATION + 1])
def test_a_token_of_another_generation_has_expired(made_on: int) -> None:
    """A token lives as long as the generation it was made on; the error names both."""
    request = pb.SearchImagesRequest(image="images/1")
    request.page_token = page_tokens.make_token(10, page_tokens.search_fingerprint(request, ""), made_on)

    with pytest.raises(PageTokenExpired, match=f"generation {made_on}, generation {GENERATION}"):
        to_query(request)


def test_a_token_of_another_listing_is_refused() -> None:
    """The filter is part of what a listing's token was made for."""
    whole, part = (page_tokens.list_fingerprint(pb.ListImagesRequest(filter=text)) for text in ("", "year = 1990"))

    assert page_tokens.page_offset(page_tokens.make_token(3, part, GENERATION), part, GENERATION) == 3
    with pytest.raises(InvalidPageToken):
        page_tokens.page_offset(page_tokens.make_token(3, whole, GENERATION), part, GENERATION)


@pytest.mark.parametrize("change", [{"page_size": 50}, {"localize_count": 2}, {"localization": 2}])
def test_a_token_outlives_what_does_not_change_the_order(change: dict[str, int]) -> None:
    """Page size and boxes may differ from page to page."""
    token = page_tokens.make_token(
        10, page_tokens.search_fingerprint(pb.SearchImagesRequest(image="images/1"), ""), GENERATION
    )
    request = pb.SearchImagesRequest(image="images/1", page_token=token, **change)

    assert requests.to_query(request, Limits(), GENERATION).offset == 10


FINGERPRINT = page_tokens.list_fingerprint(pb.ListImagesRequest())


@pytest.mark.parametrize(
    "content",
    [
        [-1, FINGERPRINT, GENERATION],
        [True, FINGERPRINT, GENERATION],
        [1.5, FINGERPRINT, GENERATION],
        [1, FINGERPRINT, float(GENERATION)],
        [1, FINGERPRINT],
        [1, FINGERPRINT, GENERATION, 0.5],
        [1, FINGERPRINT, GENERATION, 0.5, 7, 7],
        [1, FINGERPRINT, GENERATION, 1, 7],
        [1, FINGERPRINT, GENERATION, math.nan, 7],
        [1, FINGERPRINT, GENERATION, 0.5, "7"],
        [1, FINGERPRINT, GENERATION, 0.5, 2**63],
        [1],
        {"a": 1},
        None,
        5,
    ],
)
def test_a_forged_token_is_refused(content: object) -> None:
    """A token that decodes to something else is still foreign."""
    token = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()

    with pytest.raises(InvalidPageToken):
        page_tokens.page_offset(token, FINGERPRINT, GENERATION)


@given(st.text(min_size=1))
def test_any_text_is_a_foreign_token(token: str) -> None:
    """Nothing that a caller makes up is taken, and nothing breaks."""
    with pytest.raises(InvalidPageToken):
        page_tokens.page_offset(token, FINGERPRINT, GENERATION)


@given(st.binary(max_size=200))
def test_any_bytes_that_parse_are_a_query_or_a_named_error(content: bytes) -> None:
    """No request, however odd, fails otherwise."""
    request = pb.SearchImagesRequest()
    try:
        request.ParseFromString(content)
    except DecodeError:
        return  # gRPC refuses what is no message

    with contextlib.suppress(WhatwhereError):
        to_query(request)


def test_every_descriptor_has_its_value_on_the_wire() -> None:
    """The enum and the names say the same."""
    names = {requests.DESCRIPTOR_NAMES[value] for value in pb.Descriptor.values() if value}

    assert names == set(DESCRIPTORS)
    assert {requests.DESCRIPTOR_NAMES[pb.Descriptor.Value(responses.enum_name(name))] for name in DESCRIPTORS} == names


def test_no_descriptor_is_left_to_the_collection() -> None:
    """Unspecified is read as none, not as the name of one."""
    request = pb.SearchImagesRequest(image="images/1", descriptor=pb.DESCRIPTOR_UNSPECIFIED)

    assert requests.to_query(request, Limits(), GENERATION).descriptor is None
    assert requests.DESCRIPTOR_NAMES[pb.DESCRIPTOR_UNSPECIFIED] is None


# --- regions of any shape, concepts, sizes ------------------------------------------------------------------------

LEFT, RIGHT = pb.Box(x_max=0.5, y_max=1), pb.Box(x_min=0.5, x_max=1, y_max=1)


def png(size: tuple[int, int], color: int, mode: str = "L") -> bytes:
    written = io.BytesIO()
    Image.new(mode, size, color).save(written, "PNG")
    return written.getvalue()


def region_of(**fields: object) -> Region | None:
    return requests.to_region(pb.SearchImagesRequest(image="images/1", **fields), Limits())  # type: ignore[arg-type]


def test_more_regions_add_to_the_first() -> None:
    """One box stays a box; several are an area, in their order."""
    both = Area((Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)))

    assert region_of(region=LEFT) == Box(0, 0, 0.5, 1)
    assert region_of(region=LEFT, more_regions=[RIGHT]) == both
    assert region_of(more_regions=[LEFT, RIGHT]) == both
    assert region_of() is None


def test_a_mask_arrives_as_its_lightness() -> None:
    """Beside the boxes."""
    region = region_of(region=LEFT, mask=png((3, 2), 51))

    assert isinstance(region, Area)
    assert region.boxes == (Box(0, 0, 0.5, 1),)
    assert region.mask is not None
    assert region.mask.tolist() == [[51] * 3] * 2


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"more_regions": [LEFT, pb.Box(x_min=1, y_max=1)]}, "more_regions[1].x_min", "less than"),
        ({"more_regions": [LEFT] * 16}, "more_regions", "at most 15"),
        ({"mask": b"no picture"}, "mask", "not an image that can be read: a text file"),
        ({"mask": png((8, 8), 0)}, "mask", "black"),
        ({"mask": png((2001, 2000), 1, "1")}, "mask", "4,000,000"),
    ],
)
def test_a_region_that_is_none_is_named(fields: dict[str, object], field: str, words: str) -> None:
    """With its place among several."""
    with pytest.raises(InvalidRegion, match=words) as refused:
        region_of(**fields)

    assert refused.value.field == field


@pytest.mark.parametrize(
    ("concepts", "avoided", "expected"),
    [((), (), None), ((1, 3), (), {1, 3}), ((), (0, 1), {2, 3}), ((1, 2), (2,), {1})],
)
def test_concepts_are_those_kept_less_those_avoided(
    concepts: tuple[int, ...], avoided: tuple[int, ...], expected: set[int] | None
) -> None:
    """Of four factors; nothing is chosen where nobody chose."""
    query = Query(image_id=1, factors=frozenset(concepts), avoided_factors=frozenset(avoided))

    assert query.chosen(4) == expected


@pytest.mark.parametrize(
    ("concepts", "avoided", "field"),
    [((4,), (), "concepts"), ((-1,), (), "concepts"), ((), (4,), "avoided_concepts"), ((2,), (2,), "avoided_concepts")],
)
def test_concepts_that_there_are_not_are_refused(
    concepts: tuple[int, ...], avoided: tuple[int, ...], field: str
) -> None:
    """Of four factors; and so is avoiding all that were kept."""
    with pytest.raises(InvalidRequest) as refused:
        Query(image_id=1, factors=frozenset(concepts), avoided_factors=frozenset(avoided)).chosen(4)

    assert refused.value.field == field


def test_other_concepts_are_another_search() -> None:
    """A page token does not survive a change of any field that decides the order."""
    prints = {
        page_tokens.search_fingerprint(pb.SearchImagesRequest(image="images/1", **fields), "")  # type: ignore[arg-type]
        for fields in ({}, {"concepts": [1]}, {"avoided_concepts": [1]}, {"more_regions": [LEFT]}, {"mask": b"1"})
    }

    assert len(prints) == 5


def test_a_comparison_has_its_defaults() -> None:
    """As many concepts as `whatwhere compare` finds, from stored factors, no pictures of heatmaps."""
    comparison = requests.to_comparison(pb.CompareImagesRequest(image="images/1", images=["images/2"]), Limits())

    assert (comparison.example.image_id, comparison.image_ids) == (1, (2,))
    assert (comparison.rank, comparison.exact, comparison.heatmap_size_px) == (Limits.default_compared_rank, False, 0)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"images": []}, "images"),
        ({"images": ["images/2"] * 17}, "images"),
        ({"images": ["2"]}, "images"),
        ({"rank": 17}, "rank"),
        ({"rank": -1}, "rank"),
        ({"heatmap_size_px": 15}, "heatmap_size_px"),
        ({"heatmap_size_px": 2049}, "heatmap_size_px"),
        ({"localization": 9}, "localization"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(fields: dict[str, object], field: str) -> None:
    """The field is named."""
    request = pb.CompareImagesRequest(**({"image": "images/1", "images": ["images/2"]} | fields))  # type: ignore[arg-type]

    with pytest.raises(InvalidRequest) as refused:
        requests.to_comparison(request, Limits())

    assert refused.value.field == field


@pytest.mark.parametrize(
    ("request_", "needed"),
    [
        (pb.SearchImagesRequest(image="images/1", localize_count=3), False),
        (pb.SearchImagesRequest(image="images/1", localize_count=3, localization=pb.LOCALIZATION_EXACT), True),
        (pb.SearchImagesRequest(image_content=b"1"), True),
        (pb.ExplainImageRequest(image="images/1"), False),
        (pb.ExplainImageRequest(image_content=b"1"), True),
        (pb.CompareImagesRequest(image="images/1"), False),
        (pb.CompareImagesRequest(image="images/1", localization=pb.LOCALIZATION_EXACT), True),
        (pb.CompareImagesRequest(image_content=b"1"), True),
    ],
)
def test_what_needs_the_network_is_known_at_once(
    request_: pb.SearchImagesRequest | pb.ExplainImageRequest | pb.CompareImagesRequest, needed: bool
) -> None:
    """It goes another way."""
    assert requests.needs_network(request_) is needed
