"""An upload, which may have 32 MiB, is hashed once in a request, and only when its hash is needed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUERY_PHOTOGRAPH
from whatwhere.service.client.client import Client
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("one_thread")
CONTENT = QUERY_PHOTOGRAPH.read_bytes()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the lengths of what is hashed in one go from now on, as far as an upload fits into it."""
    lengths: list[int] = []
    sha256 = hashlib.sha256

    def noted(content: bytes = b"", **options: Any) -> Any:
        if len(content) >= len(CONTENT):
            lengths.append(len(content))
        return sha256(content, **options)

    monkeypatch.setattr(hashlib, "sha256", noted)
    return lengths


@pytest.fixture(params=[0, 256], ids=["nothing remembered", "uploads remembered"])
def asked(request: pytest.FixtureRequest, collection: Path) -> Iterator[tuple[Client, int]]:
    """Give a client of a server that remembers so many uploads, and whether it remembers any: 1 or 0."""
    settings = ServerSettings(collection, listen="127.0.0.1:0", remembered_uploads=request.param)
    server, port = create_server(settings)
    server.start()
    with Client(f"127.0.0.1:{port}") as client:
        yield client, int(request.param > 0)
    server.stop(None)


def test_an_upload_is_hashed_once_and_only_when_that_is_needed(asked: tuple[Client, int], hashed: list[int]) -> None:
    """For a token, to read it or to write the next; to find the upload's own image; where uploads are remembered."""
    client, remembers = asked

    def hashes(**options: Any) -> tuple[int, str]:
        hashed.clear()
        result = client.search(CONTENT, SearchOptions(**options))
        return len(hashed), result.next_page_token

    whole, none = hashes(page_size=100)
    first, token = hashes(page_size=1)
    second, following = hashes(page_size=1, page_token=token)
    last, _ = hashes(page_size=100, page_token=following)
    expanded, _ = hashes(page_size=100, expansion_count=1)

    assert (none == "", token != "", following != "") == (True, True, True)
    assert (whole, first, second, last, expanded) == (remembers, 1, 1, 1, 1)
    assert set(hashed) == {len(CONTENT)}
