"""What was stored comes back as it was, over every interface: integers, names, places, scores."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import httpx
import pytest
from typer.testing import CliRunner

from tests.browsing import browsing, plain, running
from whatwhere.indexer.boxes import Box
from whatwhere.indexer.catalog.catalog import Catalog
from whatwhere.indexer.collection.layout import Layout
from whatwhere.indexer.errors import ImageNotFound
from whatwhere.service.cli.app import app
from whatwhere.service.client.client import Client
from whatwhere.service.local.collection import open_local
from whatwhere.service.search_options import SearchOptions

pytestmark = pytest.mark.usefixtures("one_thread")

# Float64 takes the first two for one another; 1987 and 2.0 are an integer and a float.
METADATA: dict[int, dict[str, object]] = {
    1: {"id": 2**53 + 1, "year": 1987, "weight": 2.0, "label": normalize("NFD", "é"), "deep": {"ids": [2**63 - 1, 1]}},
    2: {"id": 2**53, "year": 1988, "weight": 2.5},
    3: {"id": -(2**63), "year": 1989, "text": str(2**53 + 1)},
    4: {"year": 1990, "price": 1e300},
}


@dataclass(frozen=True)
class Served:
    """A collection with this metadata, a client of its server, and the server over HTTP."""

    root: Path
    client: Client
    http: httpx.Client


@pytest.fixture(scope="module")
def served(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server of the photographs with metadata."""
    root = tmp_path_factory.mktemp("exact") / "exact.ww"
    shutil.copytree(collection, root)
    with Catalog.create(Layout(root).catalog) as catalog:
        uris = {image.id: image.uris[0] for image in catalog.images()}
        catalog.set_metadata("file", {uris[image_id]: said for image_id, said in METADATA.items()})
    with running(plain(root)) as server, browsing(server) as http, Client(server.addresses["listen"]) as client:
        yield Served(root, client, http)


def command(*arguments: str | Path) -> object:
    """Return the JSON that the command prints."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def test_metadata_comes_back_with_its_integers(served: Served) -> None:
    """The same values of the same types from a server, from a collection, and from the command."""
    wanted = {number: json.dumps(said, sort_keys=True) for number, said in METADATA.items()}

    listed = {int(image.name[7:]): image.metadata for image in served.client.images()}
    with open_local(served.root) as local:
        opened = {number: local.image(f"images/{number}").metadata for number in METADATA}
    printed = {image["id"]: image["metadata"] for image in command("images", "-c", served.root)}  # type: ignore[attr-defined]

    for found in (listed, opened, printed):
        assert {number: json.dumps(found[number], sort_keys=True) for number in METADATA} == wanted


def test_json_for_browsers_rounds_nothing(served: Served) -> None:
    """JavaScript reads every number as float64: longer integers are text there, and exact in `metadataJson`."""
    image = served.http.get("/v1/images/1").json()["image"]
    plain_image = served.http.get("/v1/images/4").json()["image"]

    assert type(image["metadata"]["year"]) is int
    assert (image["metadata"]["id"], image["metadata"]["deep"]) == (str(2**53 + 1), {"ids": [str(2**63 - 1), 1]})
    assert json.loads(image["metadataJson"]) == METADATA[1]
    assert served.http.get("/v1/images/2").json()["image"]["metadata"]["id"] == 2**53
    assert float(plain_image["metadata"]["price"]) == 1e300


def test_a_filter_takes_out_one_id_and_not_its_neighbor(served: Served, tmp_path: Path) -> None:
    """Over gRPC, HTTP and the command; `remove --where` too."""
    root = tmp_path / "removed.ww"
    shutil.copytree(served.root, root)
    text = f"id = {2**53 + 1}"

    over_grpc = [image.name for image in served.client.images(filter=text)]
    over_http = [image["name"] for image in served.http.get("/v1/images", params={"filter": text}).json()["images"]]
    searched = [hit.image.name for hit in served.client.search("images/4", SearchOptions(filter=text)).hits]
    removed = command("remove", "--where", text, "-c", root)
    left = [image["name"] for image in command("images", "-c", root, "--state", "indexed")]  # type: ignore[attr-defined]

    assert over_grpc == over_http == searched == ["images/1"]
    assert removed["images"] == ["images/1"]  # type: ignore[index]
    assert "images/1" not in left
    assert {"images/2", "images/3"} <= set(left)


def test_a_place_that_results_show_is_a_query(served: Served) -> None:
    """The URI of a stored image in any spelling is the same query as its name; one that is not stored is named."""
    uri = served.client.image("images/2").uri
    spelled = uri.replace("file:///", "file://localhost/")
    box = SearchOptions(region=Box(0.1, 0.1, 0.9, 0.9), page_size=3)
    whole = served.client.search("images/2", box)

    assert served.client.image(spelled).name == "images/2"
    assert served.client.content(uri, 32) == served.client.content("images/2", 32)
    assert served.client.search(spelled, box).hits == whole.hits
    assert [one.image.name for one in served.client.compare(uri, [uri, "images/1"]) if one.image] == [
        "images/2",
        "images/2",
        "images/1",
    ]
    assert served.client.explain(uri).image == served.client.image("images/2")
    found = served.http.post("/v1/images:search", json={"image": uri, "pageSize": 1}).json()["hits"]
    assert found[0]["image"]["name"] == "images/2"
    for nowhere in ("file:///nowhere/a%20b.jpg", f"{uri}\0", f"{uri}{'/x' * 5000}"):
        with pytest.raises(ImageNotFound, match="no image of the collection is at"):
            served.client.search(nowhere)
    token = served.client.search(uri, SearchOptions(page_size=2)).next_page_token
    pages = served.client.search("images/2", SearchOptions(page_size=2, page_token=token)).hits
    assert [hit.image.name for hit in pages] == [
        hit.image.name for hit in served.client.search("images/2", SearchOptions(page_size=4)).hits[2:]
    ]


def test_an_image_has_score_1_with_itself(served: Served) -> None:
    """Of every image and descriptor; a minimum of 1 keeps it, and nothing is beyond 1 or no number."""
    wrong = []
    for descriptor in ("what", "what-and-where", "fused", "r-mac"):
        for image in served.client.images():
            options = SearchOptions(descriptor=descriptor, min_score=1)
            scores = {hit.image.name: hit.score for hit in served.client.search(image.name, options).hits}
            if scores.get(image.name) != 1 or max(scores.values()) > 1:
                wrong.append((descriptor, image.name, scores))

    assert wrong == []


def test_an_old_name_in_a_filter_is_noted(served: Served) -> None:
    """What `images --json` called `width` is a name of the owner's metadata in a filter; the command says so."""
    noted = CliRunner().invoke(app, ["images", "-c", str(served.root), "--filter", "width > 10 OR year = 1987"])
    plain_filter = CliRunner().invoke(app, ["images", "-c", str(served.root), "--filter", "metadata.width > 10"])

    assert "note: width in a filter is a name of your metadata; that of the image is width_px" in noted.stderr
    assert "note" not in plain_filter.stderr
