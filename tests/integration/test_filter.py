"""Filters end to end: a real server, and what it answers compared with every vector and every image."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from tests.conftest import INDEXED_PHOTOGRAPHS
from tests.generations import Publisher, metadata
from whatwhere.indexer.boxes import Box
from whatwhere.indexer.errors import ImageNotFound, InvalidFilter, InvalidPageToken
from whatwhere.indexer.features.descriptors import find_descriptor
from whatwhere.service.cli.app import app
from whatwhere.service.client.client import Client
from whatwhere.service.results import Hit, SearchResult, StoredImage
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("one_thread")

PHOTOGRAPHS = len(INDEXED_PHOTOGRAPHS)
MADE = 110
REGION = Box(0.1, 0.2, 0.7, 0.9)
Predicate = Callable[[int, Mapping[str, object]], bool]

# What each filter holds for, of an image's id and metadata; the photographs have no metadata.
FILTERS: dict[str, Predicate] = {
    'label = "boat"': lambda _, stored: stored.get("label") == "boat",
    "number < 12": lambda image_id, stored: bool(stored) and image_id < 12,
    "number = 77": lambda image_id, _: image_id == 77,
    'label = "tree" AND number >= 100': lambda image_id, stored: stored.get("label") == "tree" and image_id >= 100,
    'label = "boat" OR number = 11 OR number = 13': lambda image_id, stored: (
        stored.get("label") == "boat" or image_id in (11, 13)
    ),
    'NOT label = "boat"': lambda _, stored: stored.get("label") != "boat",
    'label != "boat"': lambda _, stored: stored.get("label") == "tree",
    'taken_time > "2024-01-25"': lambda _, stored: str(stored.get("taken_time", "")) > "2024-01-25",
    'place.city = "Zürich" -label:boat': lambda image_id, stored: (
        bool(stored) and not image_id % 5 and image_id % 3 > 0
    ),
    'uri = "*7.jpg"': lambda image_id, stored: bool(stored) and image_id % 10 == 7,
    "metadata.number <= 9": lambda image_id, _: image_id == 9,
    "width_px = 640 AND height_px = 480": lambda image_id, stored: bool(stored),
    "NOT number:*": lambda _, stored: not stored,
}


@dataclass(frozen=True)
class Served:
    """A server and all that its collection holds."""

    root: Path
    address: str
    whole: Publisher

    def ids(self, text: str) -> list[int]:
        """Return what a filter holds for, image by image."""
        return [
            image_id
            for image_id in self.whole.descriptions
            if FILTERS[text](image_id, metadata(image_id) if image_id > PHOTOGRAPHS else {})
        ]

    def query(self, image_id: int, descriptor: str, region: Box | None) -> NDArray[np.float32]:
        method = find_descriptor(descriptor, self.whole.preset)
        return method.describe(self.whole.descriptions[image_id], self.whole.whiteners[descriptor], region)

    def best(self, text: str, descriptor: str, query: NDArray[np.float32]) -> list[tuple[float, int]]:
        """Return all that a filter holds for, best first, compared one by one."""
        vectors = self.whole.vectors(descriptor)
        return sorted(((float(vectors[each] @ query), each) for each in self.ids(text)), reverse=True)


@pytest.fixture(scope="module")
def served(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server of the photographs and of images with metadata."""
    root = tmp_path_factory.mktemp("filtered") / "many.ww"
    shutil.copytree(collection, root)
    with Publisher(root) as publisher:
        publisher.add(MADE)
        publisher.publish()
    server, port = create_server(ServerSettings(root, listen="127.0.0.1:0", refresh_s=0))
    server.start()
    yield Served(root, f"127.0.0.1:{port}", publisher)
    server.stop(grace=None)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    """Give a client of the server."""
    with Client(served.address) as connected:
        yield connected


def id_of(image: StoredImage) -> int:
    return int(image.name.removeprefix("images/"))


def check_best(result: SearchResult, expected: list[tuple[float, int]], count: int = 10) -> None:
    """Check that these are the `count` best, each image with its own score; equal scores may change places."""
    scores = {image_id: score for score, image_id in expected}
    found = {id_of(hit.image): hit.score for hit in result.hits}
    assert len(found) == len(result.hits) == min(count, len(expected))
    assert found == pytest.approx({image_id: scores.get(image_id) for image_id in found}, abs=2e-6)
    assert list(found.values()) == pytest.approx([score for score, _ in expected[:count]], abs=2e-6)


@pytest.mark.parametrize("text", FILTERS)
@pytest.mark.parametrize(("descriptor", "region"), [("fused", None), ("what-and-where", REGION)])
def test_a_filtered_search_is_full_and_exact(
    client: Client, served: Served, text: str, descriptor: str, region: Box | None
) -> None:
    """A page is full as long as there are enough images, and equals the comparison with each of them."""
    expected = served.best(text, descriptor, served.query(1, descriptor, region))

    result = client.search("images/1", SearchOptions(descriptor=descriptor, region=region, filter=text))

    assert len(result.hits) == min(10, len(expected)) > 0
    assert result.has_more == (len(expected) > 10)
    check_best(result, expected)


@pytest.mark.parametrize("text", FILTERS)
def test_a_filtered_list_has_what_the_filter_holds_for(client: Client, served: Served, text: str) -> None:
    """All of them, by id, each with its metadata."""
    images = list(client.images(filter=text))

    assert [id_of(image) for image in images] == served.ids(text)
    assert all(image.metadata == metadata(id_of(image)) for image in images if id_of(image) > PHOTOGRAPHS)


def test_pages_of_a_filtered_search_are_parts_of_one_answer(client: Client, served: Served) -> None:
    """Seven at a time, to the end."""
    expected = served.best('label = "boat"', "fused", served.query(3, "fused", None))
    paged: tuple[Hit, ...] = ()
    token = ""
    for _ in range(-(-len(expected) // 7)):
        page = client.search("images/3", SearchOptions(filter='label = "boat"', page_size=7, page_token=token))
        paged, token = paged + page.hits, page.next_page_token

    check_best(SearchResult(paged), expected, count=100)
    assert token == ""


def test_pages_of_a_filtered_list_are_parts_of_one_answer(served: Served) -> None:
    """Seven at a time, to the end; the token of another filter is refused."""
    with grpc.insecure_channel(served.address) as channel:
        stub = rpc.ImageSearchServiceStub(channel)  # type: ignore[no-untyped-call]
        names, request = [], pb.ListImagesRequest(page_size=7, filter='label = "boat"')
        first_token = ""
        while True:
            page = stub.ListImages(request)
            names += [image.name for image in page.images]
            request.page_token = page.next_page_token
            first_token = first_token or page.next_page_token
            if not request.page_token:
                break
        with pytest.raises(grpc.RpcError) as raised:
            stub.ListImages(pb.ListImagesRequest(page_token=first_token, filter='label = "tree"'))

    assert names == [f"images/{image_id}" for image_id in served.ids('label = "boat"')]
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_token_goes_with_its_filter(client: Client) -> None:
    """The same search with another filter is another search."""
    token = client.search("images/1", SearchOptions(filter="number < 90")).next_page_token

    with pytest.raises(InvalidPageToken):
        client.search("images/1", SearchOptions(filter="number < 91", page_token=token))


def test_a_filtered_search_is_expanded_by_what_it_finds(client: Client, served: Served) -> None:
    """The first results within the filter are added to the query, as if there were no other images."""
    query = served.query(1, "fused", None)
    vectors = served.whole.vectors("fused")
    text = 'label = "tree" AND number >= 100'
    neighbors = [image_id for _, image_id in served.best(text, "fused", query)[:4]]
    total = np.sum([query, *(vectors[image_id] for image_id in neighbors)], axis=0)

    result = client.search("images/1", SearchOptions(filter=text, expansion_count=4))

    check_best(result, served.best(text, "fused", total / np.linalg.norm(total)))


def test_an_upload_is_filtered_too(client: Client, served: Served) -> None:
    """The photograph itself is not among boats; the boats come in the order of the unfiltered answer."""
    path = next(path for path in INDEXED_PHOTOGRAPHS if path.stem == "chelsea")
    boats = set(served.ids('label = "boat"'))

    everything = client.search(path, SearchOptions(page_size=100)).hits
    filtered = client.search(path, SearchOptions(page_size=20, filter='label = "boat"')).hits

    order = [hit.image.name for hit in everything if id_of(hit.image) in boats]
    assert [hit.image.name for hit in filtered] == order[:20]


def test_a_minimum_score_and_boxes_go_with_a_filter(client: Client, served: Served) -> None:
    """Cut below the score of the third, a box on the first."""
    expected = served.best('label = "boat"', "fused", served.query(1, "fused", None))

    limit = (expected[2][0] + expected[3][0]) / 2

    result = client.search("images/1", SearchOptions(filter='label = "boat"', min_score=limit, localize_count=1))

    check_best(result, expected, count=3)
    assert [hit.box is not None for hit in result.hits] == [True, False, False]


@pytest.mark.parametrize(
    "text", ['label = "ship"', "nothing = 1", "number > 5000", 'label = "x\'; DROP TABLE images; --"']
)
def test_a_filter_that_holds_for_nothing_finds_nothing(client: Client, text: str) -> None:
    """An empty page, no error, and nothing has gone."""
    result = client.search("images/1", SearchOptions(filter=text))

    assert (result.hits, result.has_more, list(client.images(filter=text))) == ((), False, [])
    assert len(list(client.images())) == PHOTOGRAPHS + MADE


@pytest.mark.parametrize("text", ["label =", "(number < 3", "boat", "f(1)", "number < 3 AND", "x" * 5000])
def test_a_filter_that_is_none_is_refused(served: Served, client: Client, text: str) -> None:
    """The reason and the field are named, for searches and lists."""
    with pytest.raises(InvalidFilter):
        list(client.images(filter=text))
    with grpc.insecure_channel(served.address) as channel:
        stub = rpc.ImageSearchServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as raised:
            stub.SearchImages(pb.SearchImagesRequest(image="images/1", filter=text))

    status = rpc_status.from_call(raised.value)
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert [violation.field for violation in bad.field_violations] == ["filter"]


def test_an_approximate_index_answers_a_filter_exactly(served: Served, tmp_path: Path) -> None:
    """However vectors are indexed, a selective filter compares with each."""
    root, text = tmp_path / "approximate.ww", 'NOT label = "boat"'
    shutil.copytree(served.root, root)
    with Publisher(root) as publisher:
        publisher.rebuild(("fused",), "IVF32,Flat")
    server, port = create_server(ServerSettings(root, listen="127.0.0.1:0", refresh_s=0))
    server.start()

    with Client(f"127.0.0.1:{port}") as client:
        filtered = client.search("images/1", SearchOptions(filter=text, page_size=100))
    server.stop(grace=None)

    check_best(filtered, served.best(text, "fused", served.query(1, "fused", None)), count=100)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_the_commands_take_a_filter(served: Served) -> None:
    """`search --filter` and `images --filter` answer what server and catalogue do."""
    text = "number < 12"

    searched = run("search", "images/1", "--server", served.address, "--filter", text, "--json")
    listed = run("images", "--collection", served.root, "--filter", text, "--json")
    limited = run("images", "--collection", served.root, "--filter", text, "--limit", "2", "--state", "indexed")
    removed = run("images", "--collection", served.root, "--filter", text, "--state", "removed", "--json")
    torn = run("images", "--collection", served.root, "--filter", "number <")

    found = [hit["image"] for hit in json.loads(searched.stdout)["hits"]]
    expected = served.best(text, "fused", served.query(1, "fused", None))
    assert sorted(found) == sorted(f"images/{image_id}" for _, image_id in expected)
    assert [image["name"] for image in json.loads(listed.stdout)] == ["images/9", "images/10", "images/11"]
    assert [row.split()[0] for row in limited.stdout.splitlines()[1:]] == ["images/9", "images/10"]
    assert json.loads(removed.stdout) == []
    assert isinstance(torn.exception, InvalidFilter)


def test_what_was_removed_is_in_no_answer(served: Served, tmp_path: Path) -> None:
    """Removed and not yet published: left out of search, list and by name; published: gone, and pages full again."""
    root = tmp_path / "removed.ww"
    shutil.copytree(served.root, root)
    text = 'label = "boat"'
    expected = served.best(text, "fused", served.query(1, "fused", None))
    gone = expected[1][1]
    server, port = create_server(ServerSettings(root, listen="127.0.0.1:0", refresh_s=0))
    server.start()

    with Client(f"127.0.0.1:{port}") as client, Publisher(root) as publisher:
        publisher.remove([gone])
        plain = client.search("images/1", SearchOptions(page_size=100))
        filtered = client.search("images/1", SearchOptions(filter=text))
        names = [image.name for image in client.images()]
        with pytest.raises(ImageNotFound):
            client.image(f"images/{gone}")
        with pytest.raises(ImageNotFound):
            client.search(f"images/{gone}")
    server.stop(grace=None)

    assert gone not in {id_of(hit.image) for hit in plain.hits}
    check_best(filtered, [each for each in expected if each[1] != gone])
    assert len(names) == PHOTOGRAPHS + MADE - 1
    assert f"images/{gone}" not in names
