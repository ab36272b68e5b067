"""Sidecars of other programs: which image they belong to, and what is read of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.indexer.metadata.sidecar_names import possible_sidecars, sidecars_of
from whatwhere.indexer.metadata.sidecars import merged, parse_sidecar, read_sidecar

# 53 characters: Takeout cuts the name of the sidecar to 46, and that of the image to 43 and its extension.
TITLE = "this-is-a-rather-long-title-of-a-photograph-of-a-boat"


@pytest.mark.parametrize(
    ("images", "sidecar", "expected"),
    [
        (["photo.jpg"], "photo.jpg.json", ["photo.jpg"]),
        (["photo.jpg"], "photo.jpg.supplemental-metadata.json", ["photo.jpg"]),
        (["photo.jpg"], "photo.jpg.supplemental-me.json", ["photo.jpg"]),
        (["photo.jpg"], "photo.jpg.s.json", ["photo.jpg"]),
        (["photo.jpg", "photo(1).jpg"], "photo.jpg(1).json", ["photo(1).jpg"]),
        (["photo.jpg", "photo(2).jpg"], "photo.jpg.supplemental-metadata(2).json", ["photo(2).jpg"]),
        (["photo(1).jpg"], "photo(1).jpg.json", ["photo(1).jpg"]),
        ([f"{TITLE[:43]}.jpg", f"{TITLE[:43]}(1).jpg"], f"{TITLE[:46]}.json", [f"{TITLE[:43]}.jpg"]),
        ([f"{TITLE[:43]}.jpg", f"{TITLE[:43]}(1).jpg"], f"{TITLE[:46]}(1).json", [f"{TITLE[:43]}(1).jpg"]),
        ([f"{TITLE[:44]}.jpg"], f"{TITLE[:44]}.j.json", [f"{TITLE[:44]}.jpg"]),
        (["a.jpg", "a-edited.jpg"], "a.jpg.json", ["a-edited.jpg", "a.jpg"]),
        (["a.jpg"], "a.jpg.xmp", ["a.jpg"]),
        (["a.jpg", "a.heic", "b.jpg"], "a.XMP", ["a.heic", "a.jpg"]),
        (["a.jpg"], "b.jpg.json", []),
        (["a.jpg"], "a.json", []),
        (["a.jpg"], "a.jpg.other.json", []),
        (["a.jpg"], "a.jpg(1).json", []),
        (["a.jpg"], "a_01.jpg.xmp", []),
        (["a.jpg"], "a.jpg.json.bak", []),
    ],
)
def test_a_sidecar_belongs_to_an_image_by_its_name(images: Sequence[str], sidecar: str, expected: list[str]) -> None:
    """As people, Lightroom, darktable and Takeout name them."""
    found = sidecars_of(images, [sidecar, "notes.txt"])

    assert sorted(found) == expected
    assert set(found.values()) <= {(sidecar,)}


@pytest.mark.parametrize(
    ("image", "sidecar"),
    [
        ("a.jpg", "a.jpg.json"),
        ("a.jpg", "a.jpg.xmp"),
        ("a.jpg", "a.xmp"),
        ("a.jpg", "a.jpg.supplemental-metadata.json"),
        ("a(1).jpg", "a.jpg.supplemental-metadata(1).json"),
        ("a-rather-long-name-of-a.jpg", "a-rather-long-name-of-a.jpg.supplemental-metad.json"),
        ("a-edited.jpg", "a.jpg.json"),
    ],
)
def test_an_image_whose_folder_is_not_listed_has_few_possible_sidecars(image: str, sidecar: str) -> None:
    """Each is one question to the file system."""
    possible = possible_sidecars(image)

    assert sidecar in possible
    assert len(possible) <= 8


TAKEOUT = {
    "title": "IMG_1.jpg",
    "description": "At sea ",
    "imageViews": "12",
    "creationTime": {"timestamp": "1700000000"},
    "photoTakenTime": {"timestamp": "1688212800", "formatted": "1 Jul 2023, 12:00:00 UTC"},
    "geoData": {"latitude": 0.0, "longitude": 0.0, "altitude": 0.0},
    "geoDataExif": {"latitude": -33.85, "longitude": 151.2, "altitude": 3.0},
    "people": [{"name": "Anna"}, {"name": ""}, {}],
    "favorited": True,
    "url": "https://photos.google.com/photo/secret",
}
KEPT = {
    "title": "IMG_1.jpg",
    "description": "At sea",
    "taken_time": "2023-07-01T12:00:00Z",
    "people": ["Anna"],
    "favorite": True,
}


def test_a_stated_list_of_takeout_is_kept() -> None:
    """The time of the photograph in UTC; the position when asked for, where one is not 0, 0; nothing else."""
    content = json.dumps(TAKEOUT).encode()

    assert parse_sidecar(content, "IMG_1.jpg.json").values == KEPT
    position = {"latitude": -33.85, "longitude": 151.2}
    assert parse_sidecar(content, "IMG_1.jpg.json", gps=True).values == KEPT | position


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"photoTakenTime": {"timestamp": "-3600"}}, {"taken_time": "1969-12-31T23:00:00Z"}),
        ({"photoTakenTime": {"timestamp": "soon"}}, {}),
        ({"photoTakenTime": {"timestamp": "9" * 30}}, {}),
        ({"photoTakenTime": {}}, {}),
        ({"photoTakenTime": {}, "title": 5, "people": "Anna", "geoData": [1, 2]}, {}),
        ({"photoTakenTime": {}, "geoData": {"latitude": 91, "longitude": 0}}, {}),
        ({"photoTakenTime": {}, "geoData": {"latitude": True, "longitude": 5}}, {}),
        ({"photoTakenTime": {}, "geoData": {"latitude": 0, "longitude": 5}}, {"latitude": 0.0, "longitude": 5.0}),
    ],
)
def test_what_takeout_has_wrong_is_left_out(change: dict[str, object], expected: dict[str, object]) -> None:
    """Field by field."""
    assert parse_sidecar(json.dumps(change).encode(), "a.json", gps=True).values == expected


# Lightroom writes attributes, darktable and digiKam elements.
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
    xmp:Rating="4" xmp:CreateDate="2020-01-01T00:00:00" exif:GPSLatitude="50,30.6N">
   <exif:DateTimeOriginal>2019-05-31T10:00:00+02:00</exif:DateTimeOriginal>
   <exif:GPSLongitude>7,30,36W</exif:GPSLongitude>
  </rdf:Description>
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:title><rdf:Alt>
    <rdf:li xml:lang="de">Boot</rdf:li><rdf:li xml:lang="x-default">Boat &amp; sea</rdf:li>
   </rdf:Alt></dc:title>
   <dc:subject><rdf:Bag><rdf:li>sea</rdf:li><rdf:li>boat</rdf:li><rdf:li>sea</rdf:li></rdf:Bag></dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
SAID = {"title": "Boat & sea", "keywords": ["sea", "boat"], "rating": 4, "taken_time": "2019-05-31T10:00:00+02:00"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xmp_says_title_keywords_rating_and_time(encoding: str) -> None:
    """As attributes or as elements; the position when asked for."""
    content = XMP.encode(encoding)

    assert parse_sidecar(content, "a.xmp").values == SAID
    position = {"latitude": 50.51, "longitude": -7.51}
    assert parse_sidecar(content, "a.XMP", gps=True).values == SAID | position


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ('Rating="4"', 'Rating="7"'),
        ('Rating="4"', 'Rating="good"'),
        ('Rating="4"', 'Rating=""'),
    ],
)
def test_a_rating_that_is_none_is_left_out(written: str, instead: str) -> None:
    """It is -1 (rejected) to 5."""
    assert "rating" not in parse_sidecar(XMP.replace(written, instead).encode(), "a.xmp").values


ENTITIES = '<!DOCTYPE x [<!ENTITY a "{}"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ENTITIES.format("boom").encode(), "must not declare a document type"),
        (ENTITIES.format("boom").encode("utf-16"), "must not declare a document type"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>', "must not declare a document type"),
        (XMP.encode()[:500], "not XMP"),
        (b"", "not XMP"),
        (b"\xff\xd8\xff", "not XMP"),
        (b'<?xml version="1.0" encoding="nonsense"?><x/>', "not XMP"),
        (b"<x>" * 5000 + b"</x>" * 5000, "nested more than 100 deep"),
    ],
    ids=["entities", "in UTF-16", "external", "torn", "empty", "a picture", "encoding", "deep"],
)
def test_what_is_no_safe_xml_is_refused(content: bytes, words: str) -> None:
    """Nothing is expanded, nothing is fetched."""
    with pytest.raises(InvalidRequest, match=f"^a.xmp: .*{words}"):
        parse_sidecar(content, "a.xmp")


def test_of_several_sidecars_what_people_wrote_wins(tmp_path: Path) -> None:
    """Field by field: an object of our own, then XMP, the one of the whole name first, then Takeout."""
    other = XMP.replace("Boat &amp; sea", "Ship").replace('Rating="4"', 'Rating="2"')
    files = {
        "a.jpg.json": json.dumps({"rating": 1, "label": "x"}),
        "a.jpg.xmp": XMP.replace('xmp:Rating="4"', ""),
        "a.xmp": other,
        "a.jpg.supplemental-metadata.json": json.dumps(TAKEOUT),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    found = merged(read_sidecar(tmp_path / name) for name in sidecars_of(["a.jpg"], files)["a.jpg"])

    assert found == KEPT | SAID | {"rating": 1, "label": "x"}
    without_ours = merged(read_sidecar(tmp_path / name) for name in files if name != "a.jpg.json")
    assert (without_ours["title"], without_ours["rating"]) == ("Boat & sea", 2)
