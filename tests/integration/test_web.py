"""The web side of real servers, over real sockets: what it answers, how it begins and ends."""

import json
import re
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.browsing import (
    JSON,
    LOOPBACK,
    PATIENCE_S,
    UPLOAD,
    browsing,
    connected,
    crowded,
    error,
    field,
    head,
    plain,
    rest,
    running,
    strict,
)
from tests.commands import start
from tests.conftest import QUERY_PHOTOGRAPH
from tests.integration.test_serving import busy, numbers
from tests.waiting import wait_until
from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc
from whatwhere.service.server import Server
from whatwhere.service.web import files

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def server(collection: Path) -> Iterator[Server]:
    """Give a server with small limits."""
    with running(strict(collection)) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """Give a client of it."""
    with browsing(server) as browser:
        yield browser


@pytest.fixture
def stub(server: Server) -> Iterator[Any]:
    """Give the same server as gRPC's clients see it."""
    with grpc.insecure_channel(server.addresses["listen"]) as channel:
        yield rpc.ImageSearchServiceStub(channel)  # type: ignore[no-untyped-call] # generated


# --- every path -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method", "request_", "response"),
    [
        (
            "/v1/images:search",
            "SearchImages",
            pb.SearchImagesRequest(image="images/1", page_size=3, localize_count=2, region=pb.Box(x_max=1, y_max=0.5)),
            pb.SearchImagesResponse(),
        ),
        (
            "/v1/images:search",
            "SearchImages",
            pb.SearchImagesRequest(image_content=QUERY_PHOTOGRAPH.read_bytes(), page_size=2),
            pb.SearchImagesResponse(),
        ),
        (
            "/v1/images:explain",
            "ExplainImage",
            pb.ExplainImageRequest(image="images/2", heatmap_size_px=32, similar_count=1),
            pb.ExplainImageResponse(),
        ),
        (
            "/v1/images:compare",
            "CompareImages",
            pb.CompareImagesRequest(image="images/2", images=["images/3", "images/4"], rank=3),
            pb.CompareImagesResponse(),
        ),
    ],
    ids=["search stored", "search upload", "explain", "compare"],
)
def test_a_post_is_the_call_in_json(
    client: httpx.Client, stub: Any, path: str, method: str, request_: Any, response: Any
) -> None:
    """The answer says what gRPC's says."""
    answer = client.post(path, json=json_format.MessageToDict(request_))

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "no-store"
    assert json_format.Parse(answer.content, response) == getattr(stub, method)(request_)


def test_a_sample_is_drawn(client: httpx.Client) -> None:
    """As many as were asked for, no one twice."""
    images = client.post("/v1/images:sample", json={"count": 5}).json()["images"]

    assert len({image["name"] for image in images}) == 5


def test_images_are_listed_page_by_page(client: httpx.Client, stub: Any) -> None:
    """By the parameters of the address; a filter may stand there, too."""
    first = client.get("/v1/images", params={"pageSize": 3, "filter": "width_px > 100"}).json()
    second = client.get(
        "/v1/images", params={"pageSize": 5, "pageToken": first["nextPageToken"], "filter": "width_px > 100"}
    ).json()

    names = [image["name"] for image in first["images"] + second["images"]]
    assert names == [image.name for image in stub.ListImages(pb.ListImagesRequest()).images]
    assert "nextPageToken" not in second


def test_one_image_and_the_collection_are_got(client: httpx.Client, stub: Any) -> None:
    """By their addresses."""
    image = json_format.Parse(client.get("/v1/images/3").content, pb.GetImageResponse())
    collection = json_format.Parse(client.get("/v1/collection").content, pb.GetCollectionResponse())

    assert image == stub.GetImage(pb.GetImageRequest(name="images/3"))
    assert collection == stub.GetCollection(pb.GetCollectionRequest())


@pytest.mark.parametrize("size_px", [0, 64])
def test_a_picture_comes_as_it_is(client: httpx.Client, stub: Any, size_px: int) -> None:
    """Its bytes and media type, uncompressed, for this browser alone; and not again where it is there."""
    same = stub.GetImageContent(pb.GetImageContentRequest(name="images/1", size_px=size_px))

    got = client.get("/v1/images/1/content", params={"sizePx": size_px})
    again = client.get(
        "/v1/images/1/content", params={"sizePx": size_px}, headers={"if-none-match": got.headers["etag"]}
    )
    looked_at = client.head("/v1/images/1/content", params={"sizePx": size_px})

    assert (got.content, got.headers["content-type"]) == (same.content, same.mime_type)
    assert "content-encoding" not in got.headers
    assert got.headers["cache-control"].startswith("private")
    assert (again.status_code, again.content) == (304, b"")
    assert (looked_at.status_code, looked_at.content) == (200, b"")
    assert looked_at.headers["content-length"] == str(len(same.content))


def test_large_json_is_compressed_for_who_takes_it(client: httpx.Client) -> None:
    """And says the same."""
    packed = client.get("/v1/images")
    unpacked = client.get("/v1/images", headers={"accept-encoding": "identity"})

    assert (packed.headers["content-encoding"], "content-encoding" in unpacked.headers) == ("gzip", False)
    assert packed.json() == unpacked.json()


def test_an_answer_does_not_wait_for_the_receipt_of_its_head(client: httpx.Client) -> None:
    """Head and body are two packets; a kernel that waits for the first one's receipt waits 40 ms for it."""
    spent_s = []
    for _ in range(50):
        started = time.perf_counter()
        client.get("/v1/images/1")
        spent_s.append(time.perf_counter() - started)

    assert min(spent_s[-20:]) < 0.035  # the first ones' heads are acknowledged at once


# --- the page ---------------------------------------------------------------------------------------------------


def test_the_page_is_served(client: httpx.Client) -> None:
    """As it is in the package; not again where it is there; its head alone to who asks for that."""
    index = (Path(files.__file__).parent / "page" / files.INDEX).read_bytes()

    page = client.get("/")
    again = client.get("/", headers={"if-none-match": page.headers["etag"]})
    looked_at = client.head("/")

    assert (page.status_code, page.content) == (200, index)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert client.get(f"/page/{files.INDEX}").content == index
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", page.headers["etag"])
    assert (looked_at.status_code, looked_at.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/nothing.js",
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page/..%5capp.py",
        "/page/%00",
        "/page/app.js%00",
        "/page/./app.js/",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/....//app.py",
        "/../../etc/passwd",
        "//etc/passwd",
        "/service/web/app.py",
    ],
)
def test_nothing_else_is_a_file(server: Server, path: str) -> None:
    """Whatever stands in the path, which no client has tidied up."""
    with connected(server) as connection:
        connection.sendall(head("GET", path, Connection="close"))
        answer = rest(connection)

    assert answer.startswith(b"HTTP/1.1 404")
    assert b"NO_SUCH_PATH" in answer


@pytest.mark.parametrize("path", ["/", "/page/nothing", "/v1/collection", "/v1/images/1/content", "/v1/images/99"])
def test_every_answer_says_what_a_browser_may_do_with_it(client: httpx.Client, path: str) -> None:
    """Page, picture, JSON or error."""
    headers = client.get(path).headers

    assert headers["content-security-policy"].split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "answer", "at_fault"),
    [
        ("/v1/images:search", {}, (400, "INVALID_ARGUMENT", "MISSING_QUERY"), None),
        ("/v1/images:search", {"colour": 1}, (400, "INVALID_ARGUMENT", "INVALID_FIELD"), "colour"),
        ("/v1/images:search", {"pageSize": "x"}, (400, "INVALID_ARGUMENT", "INVALID_FIELD"), "page_size"),
        ("/v1/images:search", [], (400, "INVALID_ARGUMENT", "INVALID_FIELD"), None),
        ("/v1/images:search", {"image": "images/99"}, (404, "NOT_FOUND", "IMAGE_NOT_FOUND"), "image"),
        ("/v1/images:search", {"imageContent": "AQID"}, (400, "INVALID_ARGUMENT", "UNREADABLE_IMAGE"), "image_content"),
        (
            "/v1/images:search",
            {"image": "images/1", "descriptor": "DESCRIPTOR_GEM"},
            (400, "FAILED_PRECONDITION", "DESCRIPTOR_NOT_INDEXED"),
            "descriptor",
        ),
        ("/v1/images:sample", {"filter": "="}, (400, "INVALID_ARGUMENT", "INVALID_FILTER"), "filter"),
    ],
)
def test_an_error_is_googles(
    client: httpx.Client, path: str, body: Any, answer: tuple[int, str, str], at_fault: str | None
) -> None:
    """By its status, its code, its reason and the field at fault."""
    response = client.post(path, json=body)

    assert error(response) == answer
    assert field(response) == at_fault


@pytest.mark.parametrize(
    ("path", "at_fault"),
    [
        ("/v1/images?size=3", "size"),
        ("/v1/images?pageSize=x", "page_size"),
        ("/v1/images?pageSize=3&pageSize=4", None),
        ("/v1/images?pageSize=-1", "page_size"),
        ("/v1/images/x", "name"),
        ("/v1/images/1/content?sizePx=5", "size_px"),
    ],
)
def test_a_wrong_parameter_is_named(client: httpx.Client, path: str, at_fault: str | None) -> None:
    """As a field of the request that it is."""
    response = client.get(path)

    assert error(response) == (400, "INVALID_ARGUMENT", "INVALID_FIELD")
    assert field(response) == at_fault


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/images/", "/v1/images/1/2/3", "/nothing", "/page", "/v2/images"])
def test_an_unknown_path_is_an_error_like_others(client: httpx.Client, path: str) -> None:
    """In JSON; nobody is led elsewhere."""
    assert error(client.get(path)) == (404, "UNIMPLEMENTED", "NO_SUCH_PATH")


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("GET", "/v1/images:search", {"POST"}),
        ("POST", "/v1/images", {"GET", "HEAD"}),
        ("DELETE", "/v1/images/1", {"GET", "HEAD"}),
        ("POST", "/", {"GET", "HEAD"}),
        ("OPTIONS", "/v1/images:search", {"POST"}),
    ],
)
def test_another_verb_is_refused(client: httpx.Client, verb: str, path: str, allowed: set[str]) -> None:
    """With those that there are; also to a browser that asks for another site's page, which is told nothing."""
    response = client.request(verb, path, headers={"origin": "http://evil.example"})

    assert error(response) == (405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED")
    assert set(response.headers["allow"].split(", ")) == allowed
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
def test_what_is_not_said_to_be_json_is_refused(client: httpx.Client, kind: str | None) -> None:
    """Any site's page may send these; JSON it may not without asking."""
    headers = {} if kind is None else {"content-type": kind}

    response = client.post("/v1/images:search", content=b'{"image": "images/1"}', headers=headers)

    assert error(response) == (415, "INVALID_ARGUMENT", "NOT_JSON")


def test_json_with_a_charset_is_json(client: httpx.Client) -> None:
    """As some clients send it."""
    headers = {"content-type": "Application/JSON; charset=utf-8"}

    assert client.post("/v1/images:search", content=b'{"image": "images/1"}', headers=headers).status_code == 200


# a search for anything, with fields that there are and some that there are not
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [field.json_name for field in pb.SearchImagesRequest.DESCRIPTOR.fields]
OBJECTS = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), ANYTHING, max_size=5)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    path=st.sampled_from(["/v1/images:search", "/v1/images:explain", "/v1/images:compare", "/v1/images:sample"]),
    body=OBJECTS.map(lambda value: json.dumps(value).encode())
    | ANYTHING.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60),
)
def test_whatever_is_sent_is_the_senders_matter(client: httpx.Client, path: str, body: bytes) -> None:
    """An answer, or an error of the caller's: never the server's."""
    response = client.post(path, content=body, headers=JSON)

    assert response.status_code in (200, 400, 404)
    assert response.status_code == 200 or error(response)


# --- start and end ----------------------------------------------------------------------------------------------


def test_a_server_that_starts_says_so(collection: Path) -> None:
    """By its error, with when to come back; the page is there already."""
    server = Server(plain(collection))
    server.start()
    try:
        with browsing(server) as client:
            refused, page = client.get("/v1/collection"), client.get("/")
            server.open()
            opened = client.get("/v1/collection")
    finally:
        server.stop(grace=None)

    assert error(refused) == (503, "UNAVAILABLE", "SERVER_NOT_READY")
    assert refused.headers["retry-after"] == "2"
    assert (page.status_code, opened.status_code) == (200, 200)


def test_an_address_that_is_taken_is_refused(collection: Path) -> None:
    """By name, and the port of gRPC is free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InvalidRequest, match="cannot listen on"):
        Server(plain(collection, web_listen=f"127.0.0.1:{taken.getsockname()[1]}"))


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:99999", "127.0.0.1:http"])
def test_an_address_without_a_port_is_refused(collection: Path, address: str) -> None:
    """As for gRPC."""
    with pytest.raises(InvalidRequest, match="HOST:PORT") as refused:
        Server(plain(collection, web_listen=address))

    assert refused.value.field == "web_listen"


def test_both_sides_know_a_caller_of_ipv6_by_the_same_name(collection: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is the same to their limits."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    caplog.set_level("INFO", "whatwhere.service.api.interceptor")
    with running(plain(collection, listen="[::1]:0", web_listen="[::1]:0")) as server:
        found = httpx.get(f"http://{server.addresses['web']}/v1/collection", timeout=PATIENCE_S).status_code
        with grpc.insecure_channel(server.addresses["listen"]) as channel:
            stub: Any = rpc.ImageSearchServiceStub(channel)  # type: ignore[no-untyped-call] # generated
            stub.GetCollection(pb.GetCollectionRequest(), timeout=PATIENCE_S)

    first, second = (record for record in caplog.records if record.message == "request")
    assert found == 200
    assert first.client == second.client == "address:ipv6:%5B::1%5D"  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", ["absent", "long"])
def test_a_folder_that_cannot_hold_a_socket_is_refused(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """With what to do about it; nothing is left in it."""
    place = tmp_path / folder / ("x" * 100)
    if folder == "long":
        place.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    with pytest.raises(InvalidRequest, match="TMPDIR"):
        Server(plain(collection))

    assert not place.exists() or not list(place.iterdir())


def test_an_address_that_others_reach_wants_tls_and_tokens(collection: Path) -> None:
    """As for gRPC, though that one is this machine's alone; unless a person said that it may."""
    with pytest.raises(InvalidRequest, match="other machines") as refused:
        Server(plain(collection, web_listen="0.0.0.0:0"))
    with running(plain(collection, web_listen="0.0.0.0:0", allow_insecure=True)) as server, browsing(server) as client:
        status = client.get("/v1/collection").status_code

    assert refused.value.field == "web_listen"
    assert status == 200


def test_a_server_without_a_web_side_has_none(collection: Path) -> None:
    """Nor an address of it."""
    with running(plain(collection, web_listen=None)) as server:
        assert "web" not in server.addresses
        assert server._web is None


def test_requests_in_flight_are_answered_before_the_end(collection: Path) -> None:
    """Of a process that is told to end: all that have come, then no more; it ends well and leaves nothing behind."""
    options = ["--web", LOOPBACK, "--metrics", LOOPBACK, "--grace", "60", "--log-format", "json", "--threads", "1"]
    with start("serve", "--collection", collection, "--listen", LOOPBACK, *options) as process:
        assert process.stderr is not None
        try:
            first, second = process.stdout.readline(), process.stdout.readline()
            ready = next(line for line in map(json.loads, process.stderr) if line["event"] == "ready")
            page = second.split()[-1]
            metrics = int(ready["metrics"].rpartition(":")[2])
            with httpx.Client(base_url=page, timeout=90) as client, ThreadPoolExecutor(8) as pool:
                uploads = [pool.submit(client.post, "/v1/images:search", json=UPLOAD) for _ in range(8)]
                wait_until(lambda: came(metrics) == 8)
                process.send_signal(signal.SIGTERM)
                answers = [future.result(90).status_code for future in uploads]
            with pytest.raises(httpx.ConnectError):
                wait_until(lambda: httpx.get(page) is None)
            code = process.wait(60)
            rest_of_log = process.stderr.read()
        finally:
            process.kill()

    assert first.startswith(f"serving {collection} on 127.0.0.1:")
    assert re.fullmatch(r"page: http://127\.0\.0\.1:\d+/\n", second)
    assert ready["web"] == page.removeprefix("http://").removesuffix("/")
    assert answers == [200] * 8
    assert code == 0
    assert {json.loads(line)["level"] for line in rest_of_log.splitlines()} == {"info"}


def came(metrics: int) -> float:
    """Return how many searches have come, answered or in flight."""
    found = numbers(metrics)
    return (
        found.get('whatwhere_requests_total{code="OK",method="SearchImages"}', 0)
        + found["whatwhere_requests_in_flight"]
    )


def test_what_is_not_done_by_the_end_is_told_so(collection: Path) -> None:
    """By an error of a server that stops, and not by silence; its private folder is gone."""
    server = Server(crowded(collection))
    server.start()
    server.open()
    assert server._web is not None
    folder = Path(server._web.private_address.removeprefix("unix:")).parent
    with ThreadPoolExecutor(2) as pool, browsing(server) as client, busy(server):
        waiting = pool.submit(client.post, "/v1/images:search", json=UPLOAD)
        wait_until(lambda: len(server._interceptor.limiter) == 1)
        started = time.monotonic()
        stopping = pool.submit(server.stop, 0.2)  # it waits for the network, too
        answer = waiting.result(PATIENCE_S)
        took_s = time.monotonic() - started
    stopping.result(PATIENCE_S)

    assert error(answer) == (503, "UNAVAILABLE", "SERVER_NOT_READY")
    assert took_s < 5
    assert not folder.exists()


def test_idle_connections_do_not_hold_up_the_end(collection: Path) -> None:
    """However long the grace."""
    server = Server(plain(collection))
    server.start()
    with browsing(server) as client, connected(server):
        client.get("/")
        started = time.monotonic()
        server.stop(grace=60)
        took_s = time.monotonic() - started

    assert took_s < 10
