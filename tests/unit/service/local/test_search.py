"""Regions as people type them, and pictures as they look at them."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whatwhere.indexer.boxes import Box
from whatwhere.indexer.errors import InvalidRegion
from whatwhere.service.drawing.search import draw_search
from whatwhere.service.local.search import parse_region
from whatwhere.service.results import Hit, SearchResult, StoredImage


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("0.1,0.2,0.8,0.9", Box(0.1, 0.2, 0.8, 0.9)),
        (" 0, 0 ,1,1 ", Box(0, 0, 1, 1)),
        ("20,10,180,90px", Box(0.1, 0.1, 0.9, 0.9)),
        ("20px,10px,180px,90PX", Box(0.1, 0.1, 0.9, 0.9)),
        ("0,0,200.6,100px", Box(0, 0, 1, 1)),  # ground-truth files reach up to a pixel beyond
    ],
)
def test_a_region_is_fractions_or_pixels(text: str, box: Box) -> None:
    """Of a picture 200 wide and 100 high."""
    assert parse_region(text, 200, 100) == pytest.approx(box)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "a,b,c,d", "0.1,0.2,0.8,0.9,1", "10,10,300,90px", "20,10,180,90", "nan,0,1,1"]
)
def test_a_region_that_is_none_is_refused(text: str) -> None:
    """Too few numbers, words, boxes beyond the picture, pixels without px."""
    with pytest.raises(InvalidRegion):
        parse_region(text, 200, 100)


def stored(path: Path) -> StoredImage:
    return StoredImage("images/1", (path.as_uri(),), 40, 30, 1, "image/png", "", datetime(2026, 1, 1, tzinfo=UTC))


def test_the_picture_shows_query_hits_and_boxes(tmp_path: Path) -> None:
    """The query's box and the hit's are drawn in their colours on their photographs."""
    gray = np.full((300, 400, 3), 128, dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "hit.png")
    result = SearchResult((Hit(stored(tmp_path / "hit.png"), 0.5, Box(0.25, 0.25, 0.75, 0.75)),))

    sheet = np.asarray(draw_search(gray, [Box(0.0, 0.0, 0.5, 0.5)], result))

    vermilion, blue = (213, 94, 0), (0, 114, 178)
    columns_of = {color: np.nonzero((sheet == color).all(axis=2))[1] for color in (vermilion, blue)}
    assert columns_of[vermilion].max() < columns_of[blue].min()
    assert np.ptp(columns_of[blue]) == pytest.approx(150, abs=6)


def test_a_hit_whose_file_is_elsewhere_is_drawn_without_it(tmp_path: Path) -> None:
    """A picture of answers from another machine still comes out."""
    result = SearchResult((Hit(stored(tmp_path / "gone.png"), 0.5),))

    sheet = draw_search(None, [], result)

    assert sheet.size[0] > 600
