"""Real buildings, official query boxes: what the search is for."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import corel, written
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box, box_from_pixels
from whatwhere.indexer.collection.reader import open_collection
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service.client.client import Client
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

pytestmark = pytest.mark.takes(70)

LOUVRE = ("louvre_1", "louvre_2", "louvre_3", "louvre_4")  # those whose picture is in the subset


@pytest.fixture(scope="module")
def paris_files(data: Path) -> list[Path]:
    """Give the 150 Paris photographs and 50 others, all of which test_evaluate_command.py describes, too."""
    return [*sorted((data / "paris-mini/jpg").iterdir()), *corel(data)[0]]


@pytest.fixture(scope="module")
def paris(paris_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Give a client of a server of them."""
    root = tmp_path_factory.mktemp("paris") / "paris.ww"
    index_paths(paris_files, root)
    serving, port = create_server(ServerSettings(root, listen="127.0.0.1:0"))
    serving.start()
    with Client(f"127.0.0.1:{port}") as client:
        yield client
    serving.stop(grace=None)


def official_box(data: Path, query: str, sizes: dict[str, tuple[int, int]]) -> tuple[str, Box]:
    """Return a query's photograph and its box."""
    name, *sides = (data / f"paris-mini/gt/{query}_query.txt").read_text().split()
    x_min, y_min, x_max, y_max = map(float, sides)
    width, height = sizes[name]
    return name, box_from_pixels(x_min, y_min, x_max, y_max, width=width, height=height)


def test_a_box_on_the_louvre_finds_the_louvre(paris: Client, data: Path) -> None:
    """At least 8 of the first 10 are photographs of the Louvre."""
    sizes = {stem(image.uri): (image.width, image.height) for image in paris.images()}
    name, box = official_box(data, "louvre_1", sizes)

    hits = paris.search(data / f"paris-mini/jpg/{name}.jpg", SearchOptions(region=box)).hits

    assert sum("louvre" in hit.image.uri for hit in hits) >= 8


@pytest.mark.parametrize("exact", [False, True])
def test_the_boxes_on_the_louvre_beat_the_whole_image(paris: Client, data: Path, exact: bool) -> None:
    """Mean IoU with the official boxes of the other Louvre queries is 15 points or more above the whole image's."""
    images = {stem(image.uri): image for image in paris.images()}
    sizes = {name: (image.width, image.height) for name, image in images.items()}
    truths = dict(official_box(data, query, sizes) for query in LOUVRE)
    found, whole = [], []
    for name, box in truths.items():
        boxes = boxes_until(paris, images[name].name, box, set(truths), exact=exact)
        for other in set(truths) - {name}:
            box_found = boxes[other]
            found.append(box_found.intersection_over_union(truths[other]) if box_found else 0.0)
            whole.append(WHOLE_IMAGE.intersection_over_union(truths[other]))

    assert len(found) == 12
    assert np.mean(found) >= np.mean(whole) + 0.15


def boxes_until(client: Client, query: str, region: Box, wanted: set[str], *, exact: bool) -> dict[str, Box | None]:
    """Page through the answer, every hit localised, until all `wanted` pictures have been met."""
    boxes: dict[str, Box | None] = {}
    token = ""
    while not wanted <= set(boxes):
        page = client.search(
            query, SearchOptions(region=region, page_size=20, page_token=token, localize_count=20, exact=exact)
        )
        boxes |= {stem(hit.image.uri): hit.box for hit in page.hits}
        token = page.next_page_token
    return boxes


def stem(uri: str) -> str:
    return uri.rpartition("/")[2].rpartition(".")[0]


def test_batch_size_and_order_do_not_change_the_answers(paris_files: list[Path], tmp_path: Path) -> None:
    """Other batches, another order: descriptors of cosine ≥ 0.9999 and the same first ten."""
    chosen = paris_files[:24]
    index_paths(chosen, tmp_path / "a.ww", IndexSettings(batch_size=8))
    index_paths(chosen[::-1], tmp_path / "b.ww", IndexSettings(batch_size=3))
    answers = [everything(tmp_path / name) for name in ("a.ww", "b.ww")]

    for uri, (vector, ranking) in answers[0].items():
        other_vector, other_ranking = answers[1][uri]
        assert float(vector @ other_vector) >= 0.9999
        assert ranking == other_ranking


def everything(root: Path) -> dict[str, tuple[np.ndarray, list[str]]]:  # type: ignore[type-arg]
    """Return the vector and the first ten of every image."""
    serving, port = create_server(ServerSettings(root, listen="127.0.0.1:0"))
    serving.start()
    with Client(f"127.0.0.1:{port}") as client, open_collection(root) as reader:
        vectors = reader.index().vectors
        found = {
            image.uri: (
                vectors.vector(int(image.name.partition("/")[2])),
                [hit.image.uri for hit in client.search(image.name).hits],
            )
            for image in client.images()
        }
    serving.stop(grace=None)
    return found


def test_the_same_run_twice_gives_equal_bytes(paris_files: list[Path], tmp_path: Path) -> None:
    """Same files, same batch size: shards and indexes are equal byte for byte, but for the id of the collection."""
    for name in ("a.ww", "b.ww"):
        index_paths(paris_files[:16], tmp_path / name)

    assert written(tmp_path / "a.ww") == written(tmp_path / "b.ww")
