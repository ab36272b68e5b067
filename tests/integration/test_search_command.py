"""`whatwhere serve` and `whatwhere search` as people run them."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import commands
from tests.conftest import QUERY_PHOTOGRAPH
from tests.generations import Publisher
from whatwhere.indexer.boxes import Box
from whatwhere.service.client.client import Client
from whatwhere.service.search_options import SearchOptions

WIDE = {"COLUMNS": "200"}
REGION = "90,100,690,455px"
COMMANDS = ("index", "info", "images", "serve", "search", "whiten", "explain", "compare", "visualize", "evaluate")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return commands.run(*arguments, environment=os.environ | WIDE)


@pytest.fixture(scope="module")
def serving(collection: Path) -> Iterator[tuple[str, commands.Process]]:
    """Give the printed address of a real server process, and the process."""
    with commands.start("serve", "--collection", collection, "--listen", "127.0.0.1:0") as process:
        yield process.stdout.readline().split()[-1], process
        process.kill()


def test_a_search_of_a_server_prints_what_its_json_says(serving: tuple[str, object], tmp_path: Path) -> None:
    """Every documented key, the other view first, its box, and a picture."""
    picture = tmp_path / "answer.png"
    flags = ("--region", REGION, "--top", "3", "--localize", "1", "--json", "--picture", picture)

    done = run("search", QUERY_PHOTOGRAPH, "--server", serving[0], *flags)

    answer = json.loads(done.stdout)
    assert set(answer) == {"region_fallback", "kept_factor_count", "hits"}
    assert [hit["position"] for hit in answer["hits"]] == [1, 2, 3]
    first = answer["hits"][0]
    assert set(first) == {"position", "image", "uri", "path", "score", "box"}
    assert first["uri"].endswith("motorcycle_right.png")
    assert len(first["box"]) == 4
    assert answer["hits"][1]["box"] is None
    with Image.open(picture) as drawn:
        assert drawn.width > 1000


def test_a_search_of_a_collection_equals_that_of_its_server(serving: tuple[str, object], collection: Path) -> None:
    """Without a server the same answer, for the same flags."""
    flags = ("--region", REGION, "--descriptor", "what", "--expand", "2", "--top", "5", "--json")

    by_server = run("search", QUERY_PHOTOGRAPH, "--server", serving[0], *flags)
    by_folder = run("search", QUERY_PHOTOGRAPH, "--collection", collection, *flags)

    assert json.loads(by_server.stdout) == json.loads(by_folder.stdout)


def test_a_stored_image_is_asked_for_by_name(serving: tuple[str, object]) -> None:
    """images/3 in place of a file; a pixel region is one of the stored picture."""
    flags = ("--region", "0,0,100,100px", "--top", "2")
    done = commands.run_afresh("search", "images/3", "--server", serving[0], *flags, environment=os.environ | WIDE)

    assert done.returncode == 0
    assert "images/3" in done.stdout


def test_boxes_a_mask_and_concepts_arrive(serving: tuple[str, object], tmp_path: Path) -> None:
    """Two boxes, a mask, factors to keep and to leave out: each gets what the client gets that asks for the same."""
    name, boxes = "images/1", (Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 1, 1))
    mask = tmp_path / "mask.png"
    Image.linear_gradient("L").save(mask)
    asked: dict[str, tuple[tuple[str | Path, ...], dict[str, Any]]] = {
        "boxes": (("--region", "0,0,0.5,0.5", "--region", "0.5,0.5,1,1"), {"region": boxes}),
        "mask": (("--mask", mask), {"mask": mask.read_bytes()}),
        "factors": (("--factor", "0", "--factor", "2"), {"factors": [0, 2]}),
        "avoided": (("--avoid", "1"), {"avoided_factors": [1]}),
    }

    scores = {}
    for kind, (flags, options) in asked.items():
        answer = json.loads(run("search", name, "--server", serving[0], *flags, "--json").stdout)
        scores[kind] = [hit["score"] for hit in answer["hits"]]
        with Client(serving[0]) as client:
            expected = [hit.score for hit in client.search(name, SearchOptions(**options)).hits]

        assert scores[kind] == expected
    assert len({tuple(each) for each in scores.values()}) == 4


def test_the_flags_change_the_answer(serving: tuple[str, object]) -> None:
    """Each flag that has no other test arrives at the server."""
    scores = {}
    for flags in (
        (),
        ("--descriptor", "fused"),
        ("--descriptor", "what"),
        ("--descriptor", "what-and-where"),
        ("--expand", "3"),
        ("--min-score", "0.5"),
        ("--localize", "8", "--exact"),
    ):
        answer = json.loads(run("search", QUERY_PHOTOGRAPH, "--server", serving[0], "--json", *flags).stdout)
        scores[flags] = [hit["score"] for hit in answer["hits"]]
        boxes = [hit["box"] for hit in answer["hits"]]
        assert any(boxes) == ("--exact" in flags)

    plain, fused, what, where, expanded, cut, exact = scores.values()
    assert plain == fused
    assert plain != what != where != plain
    assert plain != expanded
    assert cut == [score for score in plain if score >= 0.5]
    assert exact == plain


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-such-file.jpg", "--collection", "{collection}"), "no-such-file.jpg"),
        (("{photograph}", "--collection", "no-such-collection"), "whatwhere index"),
        (("{photograph}", "--collection", "{collection}", "--region", "0.5,0,0.1,1"), "region.x_min is 0.5"),
        (("{photograph}", "--collection", "{collection}", "--descriptor", "gem"), "no gem vectors"),
        (("{photograph}", "--server", "127.0.0.1:1"), "whatwhere serve"),
        (("images/77", "--collection", "{collection}"), "images/77"),
        (("{photograph}", "--collection", "{collection}", "--picture", "/no/such/folder/a.png"), "/no/such/folder"),
    ],
)
def test_an_error_is_a_sentence_not_a_traceback(collection: Path, arguments: tuple[str, ...], words: str) -> None:
    """Exit code 1, one line that names the value or the remedy."""
    filled = [text.format(collection=collection, photograph=QUERY_PHOTOGRAPH) for text in arguments]

    done = run("search", *filled)

    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_asking_nobody_or_both_is_wrong_usage(collection: Path) -> None:
    """Either a server or a collection."""
    neither = run("search", QUERY_PHOTOGRAPH)
    both = run("search", QUERY_PHOTOGRAPH, "--server", "127.0.0.1:1", "--collection", collection)

    assert (neither.returncode, both.returncode) == (2, 2)


def test_what_goes_with_a_server_is_wrong_usage_with_a_collection(collection: Path) -> None:
    """It would be ignored without a word."""
    for flags in (("--tls",), ("--allow-insecure",), ("--token-file", "a"), ("--ca", "a")):
        done = run("search", QUERY_PHOTOGRAPH, "--collection", collection, *flags)

        assert done.returncode == 2
        assert "--server" in done.stderr


def test_every_command_explains_itself() -> None:
    """--help of the command and each sub-command, and the version."""
    for command in ((), *((name,) for name in COMMANDS)):
        done = run(*command, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run("--version").stdout)


def test_a_server_told_not_to_look_says_what_it_has_missed(collection: Path, tmp_path: Path) -> None:
    """`serve --refresh 0` stays with its generation; a caller sees that there is a newer one."""
    root = tmp_path / "photographs.ww"
    shutil.copytree(collection, root)
    flags = ("--listen", "127.0.0.1:0", "--refresh", "0")
    with commands.start("serve", "--collection", root, *flags) as process:
        with Client(process.stdout.readline().split()[-1]) as client, Publisher(root) as publisher:
            publisher.add(1)
            publisher.publish()
            time.sleep(1.5)  # one that looks does so every second
            info = client.collection()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    assert (info.generation, info.latest_generation) == (1, 2)


def test_a_server_ends_its_requests_on_sigterm(collection: Path) -> None:
    """SIGTERM stops it cleanly, with a log line for each request it served."""
    with commands.start("serve", "--collection", collection, "--listen", "127.0.0.1:0") as process:
        with Client(process.stdout.readline().split()[-1]) as client:
            client.search("images/1")
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "method=SearchImages code=OK" in messages
