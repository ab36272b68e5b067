"""Files that real photo libraries hold: what a scan and the tables make of them."""

from pathlib import Path

import pytest

from tests.conftest import SHARED
from whatwhere.indexer.images.exif import exif
from whatwhere.indexer.metadata.tables import read_table
from whatwhere.indexer.sources.scan import Found, find

CASES = SHARED / "cases" / "images"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is absent")


@pytest.fixture(scope="module")
def found() -> Found:
    """Give what a scan of all cases finds."""
    return find([CASES])


def uri(name: str) -> str:
    return (CASES / name).as_uri()


def test_apple_double_is_left_out_by_name(found: Found) -> None:
    """It is called like a photograph and is none."""
    assert found.skipped[uri("._photo.jpg")].kind == "AppleDouble"


def test_a_photograph_without_extension_is_found_by_content(found: Found) -> None:
    """And so is one that is called as another format is."""
    assert {uri("jpeg_noextension"), uri("jpeg_named_heic.heic")} <= found.pictures.keys()


def test_every_case_is_an_image_or_has_a_reason(found: Found) -> None:
    """Nothing is passed over in silence."""
    assert {*found.pictures, *found.skipped} == {path.as_uri() for path in CASES.iterdir()}
    assert all(why.reason for why in found.skipped.values())


def test_nought_and_nought_is_no_position() -> None:
    """Not a place in the Gulf of Guinea."""
    assert exif((CASES / "gps_zero.jpg").read_bytes(), gps=True).keys().isdisjoint({"latitude", "longitude"})


def test_twenty_digits_stay_text(tmp_path: Path) -> None:
    """In the column of the case, and the next id is another one."""
    path = tmp_path / "two.csv"
    path.write_text((CASES / "bigint.csv").read_text() + "b.jpg,12345678901234567891\n")

    assert read_table(CASES / "bigint.csv") == {"a.jpg": {"id": "12345678901234567890"}}
    assert [row["id"] for row in read_table(path).values()] == ["12345678901234567890", "12345678901234567891"]


def test_a_table_with_semicolons_is_read() -> None:
    """As a spreadsheet with another language saves it."""
    assert read_table(CASES / "semicolon.csv") == {"a.jpg": {"label": "boat"}}
