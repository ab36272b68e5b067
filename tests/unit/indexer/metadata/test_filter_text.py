"""Filters as text: what is written means what was parsed, and relative paths become absolute."""

from pathlib import Path

import pytest

from whatwhere.indexer.errors import InvalidFilter
from whatwhere.indexer.metadata.filter_text import with_absolute_uris, written
from whatwhere.indexer.metadata.filters import parse


@pytest.mark.parametrize(
    "text",
    [
        'label = "boat"',
        "year > 1990 AND NOT (tags:draft OR rating <= 2.5)",
        'metadata."odd name" = "say \\"x\\" \\\\ \\* *"',
        "a.b = *x* OR c != 'x y*'",
        'AND_ = "" "OR" : "NOT"',
        "-(a = 1 b = 2)",
        'place."a.b" : "*"',
    ],
)
def test_what_is_written_means_what_was_parsed(text: str) -> None:
    """Quotes, stars, backslashes, words that are operators, nested parts."""
    assert parse(written(parse(text))) == parse(text)


def test_relative_places_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those that are compared with the place; a filter without any stays as it is, also its spaces."""
    monkeypatch.chdir(tmp_path)

    assert with_absolute_uris('uri = "new/*" AND label = a/b') == f'uri = "{tmp_path}/new/*" AND label = a/b'
    assert with_absolute_uris("NOT uri = x.jpg") == f'NOT uri = "{tmp_path}/x.jpg"'
    for text in ('uri = "*.jpg"', "uri:*", "label  =  x.jpg", 'uri = "/a"', 'uri = "s3://b/*"', 'uri = "file:///a"'):
        assert with_absolute_uris(text) == text
    with pytest.raises(InvalidFilter):
        with_absolute_uris("uri =")
