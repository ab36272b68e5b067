"""Measure the README's numbers in one run: `python -m tests.measure`.

Indexes the Paris subset with 200 other photographs. Prints the speed of indexing, the time of each kind of query, the
bytes per image, and the IoU of boxes with the official ones, for stored factors and for new forward passes.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

from tests.conftest import DATA
from whatwhere.indexer.boxes import WHOLE_IMAGE, Box, box_from_pixels
from whatwhere.indexer.maintenance.info import inspect_collection
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.service.client.client import Client
from whatwhere.service.results import StoredImage
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import ServerSettings

DISTRACTORS = 200
REPEATS = 15


def main() -> None:
    """Print the measurements as JSON."""
    photographs = sorted((DATA / "paris-mini/jpg").iterdir())
    files = [*photographs, *sorted((DATA / "distractors").glob("*.JPEG"))[:DISTRACTORS]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "paris.ww"
        started = time.perf_counter()
        index_paths(files, root)
        found: dict[str, object] = {"index_images_per_s": len(files) / (time.perf_counter() - started)}
        sizes = inspect_collection(root)["bytes"]
        found["bytes_per_image"] = {name: round(size / len(files)) for name, size in sizes.items()}
        serving, port = create_server(ServerSettings(root, listen="127.0.0.1:0"))
        serving.start()
        with Client(f"127.0.0.1:{port}") as client:
            found["median_ms"] = latencies(client, photographs)
            found["localization"] = localization(client)
        serving.stop(grace=None)
    print(json.dumps(found, indent=2))  # noqa: T201


def latencies(client: Client, photographs: list[Path]) -> dict[str, float]:
    """Return the median time of each kind of query in milliseconds, measured by the client."""
    box = Box(0.1, 0.1, 0.9, 0.7)
    kinds: dict[str, Callable[[int], object]] = {
        "uploaded image": lambda n: client.search(photographs[n]),
        "uploaded image, region": lambda n: client.search(photographs[n], SearchOptions(region=box)),
        "stored image": lambda n: client.search(f"images/{n + 1}"),
        "stored image, region": lambda n: client.search(f"images/{n + 1}", SearchOptions(region=box)),
        "stored image, region, expansion 5": lambda n: client.search(
            f"images/{n + 1}", SearchOptions(region=box, expansion_count=5)
        ),
        "stored image, region, 10 boxes from stored factors": lambda n: client.search(
            f"images/{n + 1}", SearchOptions(region=box, localize_count=10)
        ),
        "stored image, region, 10 exact boxes": lambda n: client.search(
            f"images/{n + 1}", SearchOptions(region=box, localize_count=10, exact=True)
        ),
    }
    return {name: round(median_ms(ask), 1) for name, ask in kinds.items()}


def median_ms(ask: Callable[[int], object]) -> float:
    """Time one call for each of the first images; the first two calls are a warm-up."""
    times = []
    for number in range(REPEATS + 2):
        started = time.perf_counter()
        ask(number)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[2:])


def localization(client: Client) -> dict[str, object]:
    """Return the mean IoU with the official boxes over all ordered pairs of one building's queries, in percent."""
    images = {Path(image.uri).stem: image for image in client.images()}
    buildings: dict[str, list[tuple[str, Box]]] = {}
    for path in sorted((DATA / "paris-mini/gt").glob("*_query.txt")):
        name, *sides = path.read_text().split()
        if name in images:
            building = path.name.partition("_")[0]
            buildings.setdefault(building, []).append((name, official_box(sides, images[name])))
    pairs = [pair for queries in buildings.values() for pair in permutations(queries, 2) if pair[0][0] != pair[1][0]]
    overlaps: dict[str, list[float]] = {"whole image": [], "stored": [], "exact": []}
    for (query, region), (other, truth) in pairs:
        overlaps["whole image"].append(WHOLE_IMAGE.intersection_over_union(truth))
        for exact in (False, True):
            box = box_of(client, images[query].name, region, images[other].name, exact=exact)
            overlaps["exact" if exact else "stored"].append(box.intersection_over_union(truth) if box else 0.0)
    means = {name: round(100 * statistics.mean(values), 1) for name, values in overlaps.items()}
    return {"pairs": len(pairs), "mean_iou_percent": means}


def official_box(sides: list[str], image: StoredImage) -> Box:
    """Return a ground-truth box as fractions of the picture."""
    x_min, y_min, x_max, y_max = map(float, sides)
    return box_from_pixels(x_min, y_min, x_max, y_max, width=image.width, height=image.height)


def box_of(client: Client, query: str, region: Box, wanted: str, *, exact: bool) -> Box | None:
    """Page through the results until `wanted` is found; every hit is localized."""
    token = ""
    while True:
        page = client.search(
            query, SearchOptions(region=region, page_size=20, page_token=token, localize_count=20, exact=exact)
        )
        for hit in page.hits:
            if hit.image.name == wanted:
                return hit.box
        token = page.next_page_token
        if not token:
            return None


if __name__ == "__main__":
    main()
