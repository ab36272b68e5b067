"""A collection's files in an object store: a real S3 server, and the cache in front of it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_store import s3_server
from whatwhere.indexer.collection.cache import CACHE_BYTES
from whatwhere.indexer.collection.layout import Current, Layout
from whatwhere.indexer.errors import CollectionNotWritable, InvalidRequest, ObjectStoreUnavailable
from whatwhere.indexer.storage.object_store import ObjectFolder

BUCKET = "pictures"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server(BUCKET) as endpoint:
        yield endpoint


@pytest.fixture
def address(endpoint: str, request: pytest.FixtureRequest) -> str:
    """Name a place of the test's own."""
    return f"s3://{BUCKET}/{request.node.name}"


@pytest.fixture
def layout(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("WHATWHERE_CACHE", str(tmp_path / "here"))
    return Layout.at(address)


@pytest.fixture
def elsewhere(layout: Layout, tmp_path: Path) -> Layout:
    """Return the same collection on another machine: what one keeps the other has to fetch."""
    return Layout(tmp_path / "elsewhere", layout.objects)


def written(layout: Layout, path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    layout.keep(path)
    return path


def test_what_is_kept_here_can_be_fetched_elsewhere(layout: Layout, elsewhere: Layout) -> None:
    written(layout, layout.shards / "1.safetensors", b"factors")

    path = elsewhere.fetch(elsewhere.shards / "1.safetensors")

    assert path.read_bytes() == b"factors"
    assert path.is_relative_to(elsewhere.root)


def test_a_file_is_fetched_once(layout: Layout, elsewhere: Layout) -> None:
    """What never changes is read from the cache, whatever becomes of the store's."""
    path = written(layout, layout.shards / "1.safetensors", b"factors")
    elsewhere.fetch(elsewhere.shards / "1.safetensors")
    layout.discard(path)

    assert elsewhere.fetch(elsewhere.shards / "1.safetensors").read_bytes() == b"factors"
    assert not elsewhere.fetch(elsewhere.shards / "1.safetensors", refetch=True).exists()


def test_what_is_not_there_is_not_there_after_fetching_either(layout: Layout) -> None:
    assert not layout.fetch(layout.shards / "9.safetensors").exists()
    assert list(layout.root.rglob("*9.safetensors*")) == []  # no half file either


def test_the_live_generation_is_read_anew_each_time(layout: Layout, elsewhere: Layout) -> None:
    layout.root.mkdir(parents=True)
    assert elsewhere.read_current() is None

    for number in (1, 2):
        layout.write_current(Current(number, "a" * 64))

        assert elsewhere.current_number() == number


def test_a_folder_is_kept_listed_fetched_and_discarded_whole(layout: Layout, elsewhere: Layout) -> None:
    for number in (7, 70):
        folder = layout.generation(number)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        (folder / "removed.npy").write_bytes(b"ids")
        layout.keep(folder)

    fetched = sorted(path.name for path in elsewhere.fetch_folder(elsewhere.generation(7)).iterdir())
    numbers = elsewhere.generation_numbers()
    elsewhere.discard(elsewhere.generation(7))

    assert fetched == ["manifest.json", "removed.npy"]
    assert numbers == [7, 70]
    assert not elsewhere.generation(7).exists()
    assert layout.generation_numbers() == [70]
    assert layout.names(layout.generation(70)) == ["manifest.json", "removed.npy"]
    assert layout.byte_count(layout.generations) == len("{}") + len("ids")


def test_the_cache_keeps_within_its_bytes_what_was_used_last(
    layout: Layout, elsewhere: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three files of 10 bytes two fit; the one that was read last among the older ones stays."""
    monkeypatch.setenv(CACHE_BYTES, "25")
    for name in "abc":
        written(layout, layout.shards / name, b"0123456789")
    for used_at, name in enumerate("ab"):
        os.utime(elsewhere.fetch(elsewhere.shards / name), ns=(used_at, used_at))

    elsewhere.fetch(elsewhere.shards / "a")  # a use: now b is the oldest
    elsewhere.fetch(elsewhere.shards / "c")

    assert sorted(path.name for path in elsewhere.shards.iterdir()) == ["a", "c"]


def test_a_store_that_is_away_is_named_with_what_to_look_at(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, and not listening: whoever calls is refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr("fsspec.config.conf", {"s3": {"skip_instance_cache": True}})
        folder = ObjectFolder("s3://away/collection")

        with pytest.raises(ObjectStoreUnavailable, match=r"s3://away/collection is unreachable .*: check that"):
            folder.download("CURRENT", layout.root / "CURRENT")


def test_a_bucket_that_is_not_there_is_an_error_and_not_an_empty_collection(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(CollectionNotWritable, match=r"s3://nobody-has-it/collection .*: create the bucket first"):
        ObjectFolder("s3://nobody-has-it/collection").upload(Path(__file__), "x")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("https://example.org/collection", "is read-only"),
        ("gs://bucket/collection", r"pip install 'whatwhere\[gcs\]'"),
        ("s3://KEY:word@bucket/collection", "^s3://…@bucket/collection: .* AWS_SECRET_ACCESS_KEY"),
        ("gopher://example.org/collection", "a scheme that fsspec does not support"),
    ],
)
def test_an_address_that_can_hold_no_collection_is_refused_with_a_remedy(address: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Layout.at(address).read_current()


def test_a_directory_is_itself_the_collection(tmp_path: Path) -> None:
    layout = Layout.at(str(tmp_path / "collection.ww"))

    assert layout == Layout(tmp_path / "collection.ww")
    assert layout == Layout.at((tmp_path / "collection.ww").as_uri())
    assert layout.fetch(layout.current) == tmp_path / "collection.ww" / "CURRENT"
