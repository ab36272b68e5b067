"""Whom the web side refuses: what is too much, too slow, from elsewhere, without a token; and what its log says."""

import base64
import json
import re
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.browsing import (
    JSON,
    PATIENCE_S,
    UPLOAD,
    answer,
    browsing,
    connected,
    crowded,
    error,
    head,
    plain,
    port_of,
    rest,
    running,
    strict,
)
from tests.integration.test_serving import busy, numbers
from tests.waiting import wait_until
from whatwhere.service.api.gateway import CLIENT
from whatwhere.service.observability.tracing import Tracer
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc
from whatwhere.service.security.tokens import Scope, create_token
from whatwhere.service.server import Server
from whatwhere.service.settings import Limits

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.takes(60)]


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


def stub_of(channel: grpc.Channel) -> Any:
    return rpc.ImageSearchServiceStub(channel)  # type: ignore[no-untyped-call] # generated


# --- how much, and how slowly -----------------------------------------------------------------------------------


def test_a_body_that_is_said_to_be_too_large_is_not_waited_for(server: Server) -> None:
    """Not a byte of it is sent."""
    with connected(server) as connection:
        length = str(3 * 1024 * 1024)
        connection.sendall(head("POST", "/v1/images:search", Content_Type="application/json", Content_Length=length))
        started = time.monotonic()
        status, body = answer(connection)
        took_s = time.monotonic() - started

    assert status == 413
    assert b"IMAGE_TOO_MANY_BYTES" in body
    assert took_s < 0.8


def test_a_body_that_grows_too_large_is_refused(client: httpx.Client) -> None:
    """One that does not say how large it will be."""
    response = client.post("/v1/images:search", content=iter([b" " * 65536] * 48), headers=JSON)

    assert error(response) == (413, "INVALID_ARGUMENT", "IMAGE_TOO_MANY_BYTES")


def test_an_image_of_the_largest_size_fits(client: httpx.Client) -> None:
    """One byte more is named for what it is: the body's limit is beyond the image's."""
    fits, large = (base64.b64encode(bytes(1024 * 1024 + more)).decode() for more in (0, 1))

    within = client.post("/v1/images:search", json={"imageContent": fits})
    beyond = client.post("/v1/images:search", json={"imageContent": large})

    assert error(within)[2] == "UNREADABLE_IMAGE"
    assert error(beyond) == (413, "INVALID_ARGUMENT", "IMAGE_TOO_MANY_BYTES")


@pytest.mark.parametrize(
    "beginning", [b"", b"GET /v1/collection HTTP/1.1\r\nHost: local"], ids=["silent", "half a head"]
)
def test_a_head_that_does_not_come_is_not_waited_for(server: Server, beginning: bytes) -> None:
    """The connection is cut when its time is over."""
    with connected(server) as connection:
        started = time.monotonic()
        connection.sendall(beginning)
        said = rest(connection)
        took_s = time.monotonic() - started

    assert said == b""
    assert 0.5 < took_s < 5


def test_a_head_that_trickles_is_not_waited_for(server: Server) -> None:
    """Its time runs from its first byte; also of the second request on a connection."""
    with connected(server) as connection:
        connection.sendall(head("GET", "/v1/collection"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        cut = False
        while not cut and time.monotonic() < started + PATIENCE_S:
            time.sleep(0.1)
            cut = not trickled(connection)
        took_s = time.monotonic() - started

    assert cut
    assert 0.5 < took_s < 5


def trickled(connection: socket.socket) -> bool:
    """Send a byte; return whether somebody still listens."""
    try:
        connection.sendall(b"G")
    except OSError:
        return False
    return True


def test_a_body_that_trickles_is_ended_by_name(server: Server) -> None:
    """As over gRPC; then its connection is cut."""
    with connected(server) as connection:
        connection.sendall(head("POST", "/v1/images:search", Content_Type="application/json", Content_Length="1000"))
        started = time.monotonic()
        connection.settimeout(0.1)
        said, cut = b"", False
        while not cut and time.monotonic() < started + PATIENCE_S:
            cut = not trickled(connection)
            try:
                said += connection.recv(65536)
            except (TimeoutError, ConnectionResetError):
                continue
        took_s = time.monotonic() - started

    assert said.startswith(b"HTTP/1.1 408")
    assert b"REQUEST_TOO_SLOW" in said
    assert 1.5 < took_s < 6


def test_what_is_no_http_is_refused(server: Server) -> None:
    """By a 400 and the end of the connection."""
    with connected(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\r\n\r\n")
        said = rest(connection)

    assert said.startswith(b"HTTP/1.1 400")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["details"][0]["reason"] == "NOT_HTTP"


def test_another_protocol_is_not_taken_up(server: Server) -> None:
    """Neither WebSocket nor HTTP/2: the request is answered as it is, or refused."""
    with connected(server) as connection:
        upgrade = {
            "Upgrade": "websocket",
            "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec_WebSocket_Version": "13",
        }
        connection.sendall(head("GET", "/v1/images/1", Connection="Upgrade", **upgrade))
        status, _ = answer(connection)
    with connected(server) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        said = rest(connection)

    assert status == 200
    assert said.startswith(b"HTTP/1.1 4")


def test_what_stops_to_be_http_is_refused(server: Server) -> None:
    """In the middle of a body; others are served."""
    with connected(server) as connection:
        connection.sendall(
            head("POST", "/v1/images:search", Content_Type="application/json", Transfer_Encoding="chunked")
        )
        connection.sendall(b"nonsense\r\n")
        said = rest(connection)
    with browsing(server) as client:
        status = client.get("/v1/collection").status_code

    assert said.startswith(b"HTTP/1.1 400")
    assert status == 200


@pytest.mark.parametrize("at_once", [True, False])
def test_a_head_that_is_too_large_is_refused(server: Server, at_once: bool) -> None:
    """Whether it comes in one piece or in many."""
    with connected(server) as connection:
        sent = head("GET", "/v1/collection", Connection="close", X_Large="a" * 40_000)
        try:
            if at_once:
                connection.sendall(sent)
            for start in range(0, 0 if at_once else len(sent), 4096):
                connection.sendall(sent[start : start + 4096])
                time.sleep(0.02)
        except OSError:
            pass  # it was refused before its end
        said = rest(connection)

    assert said[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"")
    assert b"200 OK" not in said


def test_too_much_metadata_is_named(client: httpx.Client) -> None:
    """A token of 10 KB is more than is read."""
    response = client.get("/v1/collection", headers={"authorization": "Bearer " + "a" * 10_000})

    assert error(response) == (431, "INVALID_ARGUMENT", "CALL_METADATA_TOO_LARGE")


def test_requests_on_one_connection_are_answered_in_turn(server: Server) -> None:
    """Three at once, the last with the end of it."""
    with connected(server) as connection:
        connection.sendall(head("GET", "/v1/images/1") + head("HEAD", "/v1/images/1"))
        connection.sendall(head("GET", "/v1/images/99", Connection="close"))
        answers = rest(connection)

    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"200", b"200", b"404"]


def test_slow_senders_take_no_more_than_the_places_of_one_client(collection: Path) -> None:
    """What is more than its share is refused at once, others are served; who goes gives its place back."""
    with running(plain(collection, limits=Limits(max_concurrent_per_client=2))) as server:
        begun = head("POST", "/v1/images:search", Content_Type="application/json", Content_Length="1000") + b"{"
        with connected(server) as first, connected(server) as second, connected(server) as third:
            for connection in (first, second):
                connection.sendall(begun)
            wait_until(lambda: len(server._interceptor.limiter) == 2)
            third.sendall(begun)
            status, _ = answer(third)
            with browsing(server, "127.0.0.2") as other:
                served = other.get("/v1/collection").status_code
        wait_until(lambda: len(server._interceptor.limiter) == 0)
        found = numbers(server.metrics_port)

    assert (status, served) == (429, 200)
    assert found['whatwhere_requests_total{code="CANCELLED",method="SearchImages"}'] == 2


def test_a_sender_that_waits_to_be_asked_is_asked(server: Server) -> None:
    """By 100, as curl wants it before it sends a picture."""
    body = b'{"image": "images/1"}'
    with connected(server) as connection:
        sent = head(
            "POST",
            "/v1/images:search",
            Content_Type="application/json",
            Content_Length=str(len(body)),
            Expect="100-continue",
        )
        connection.sendall(sent)
        asked = connection.recv(65536)
        connection.sendall(body)
        status, _ = answer(connection)

    assert asked.startswith(b"HTTP/1.1 100")
    assert status == 200


def test_who_does_not_read_the_answers_is_cut_off(collection: Path) -> None:
    """Three pictures of 0.8 MB are more than is kept for it; one who reads slowly, and then faster, gets them all."""
    asked = head("GET", "/v1/images/1/content")
    with running(plain(collection, limits=Limits(web_idle_s=0.5))) as server:
        assert server._web is not None
        connections = server._web._state.connections
        with unhurried(server) as connection:
            connection.sendall(asked * 3)
            wait_until(lambda: len(connections) == 1)
            wait_until(lambda: not connections)
        with unhurried(server) as connection:
            connection.sendall(asked * 2 + head("GET", "/v1/images/1/content", Connection="close"))
            started, read = time.monotonic(), 0
            while piece := connection.recv(65536):
                read += len(piece)
                time.sleep(0.005 if time.monotonic() < started + 2 else 0)
        with browsing(server) as client:
            size = len(client.get("/v1/images/1/content").content)

    assert read > 3 * size


def unhurried(server: Server) -> socket.socket:
    """Return a connection with little room for what has not been read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE_S)
    connection.connect(("127.0.0.1", port_of(server)))
    return connection


def test_there_are_so_many_connections_and_no_more(collection: Path) -> None:
    """Of one client and of all; those that end make room."""
    limits = Limits(max_web_connections=3, max_web_connections_per_client=2)
    with running(plain(collection, limits=limits)) as server:
        opened = [from_address(server, source) for source in ("127.0.0.2", "127.0.0.2", "127.0.0.3")]
        served = [serves(connection) for connection in opened]
        beyond = [from_address(server, source) for source in ("127.0.0.2", "127.0.0.4")]
        refused = [serves(connection) for connection in beyond]
        for connection in opened + beyond:
            connection.close()
        wait_until(lambda: served_anew(server))

    assert served == [True] * 3
    assert refused == [False] * 2


def from_address(server: Server, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(server)), PATIENCE_S, (source, 0))


def serves(connection: socket.socket) -> bool:
    try:
        connection.sendall(head("GET", "/v1/collection"))
        return connection.recv(65536).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def served_anew(server: Server) -> bool:
    with closing(from_address(server, "127.0.0.4")) as connection:
        return serves(connection)


# --- whose request it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["evil.example", "10.1.2.3", "find.example.evil.example", ""])
def test_a_name_that_is_not_ours_is_refused(client: httpx.Client, name: str) -> None:
    """Page and JSON: it may have been led here."""
    for path in ("/", "/v1/collection"):
        assert error(client.get(path, headers={"host": name})) == (421, "INVALID_ARGUMENT", "WRONG_HOST")


@pytest.mark.parametrize(
    "name", ["localhost", "localhost:9", "127.0.0.1", "[::1]:8080", "find.example", "Find.Example:1"]
)
def test_names_that_are_ours_are_answered(client: httpx.Client, name: str) -> None:
    """Of this machine, and those that were told."""
    assert client.get("/v1/collection", headers={"host": name}).status_code == 200


@pytest.mark.parametrize(("lines", "status"), [(b"", b"400"), (b"Host: localhost\r\nHost: localhost\r\n", b"400")])
def test_no_name_or_two_are_refused(server: Server, lines: bytes, status: bytes) -> None:
    """As HTTP wants it; in version 1.0, which needs none, by us."""
    with connected(server) as connection:
        connection.sendall(b"GET /v1/collection HTTP/1.1\r\n" + lines + b"\r\n")
        said = rest(connection)
    with connected(server) as connection:
        connection.sendall(b"GET /v1/collection HTTP/1.0\r\n\r\n")
        old = rest(connection)

    assert said[9:12] == status
    assert old[9:12] == b"421"


@pytest.mark.parametrize(
    ("site", "refused"), [("cross-site", True), ("same-site", True), ("same-origin", False), ("none", False)]
)
def test_another_sites_page_may_not_ask(client: httpx.Client, site: str, refused: bool) -> None:
    """The page itself may be linked to; what it asks for is its own."""
    headers = {"sec-fetch-site": site}

    asked = client.get("/v1/images/1/content", headers=headers)
    linked = client.get("/", headers=headers)

    assert (asked.status_code == 403) is refused
    assert not refused or error(asked) == (403, "PERMISSION_DENIED", "CROSS_SITE")
    assert linked.status_code == 200


@pytest.mark.parametrize(
    ("given", "kept"), [("mine-42", True), (None, False), ("with space", False), ("x" * 129, False)]
)
def test_a_request_id_comes_back(client: httpx.Client, given: str | None, kept: bool) -> None:
    """Of an answer, an error and a refusal; another where it cannot be logged."""
    headers = {} if given is None else {"x-request-id": given}

    found = [
        client.get(path, headers=headers).headers["x-request-id"] for path in ("/v1/images/1", "/v1/images/99", "/x")
    ]

    assert all((value == given) is kept for value in found)
    assert kept or all(re.fullmatch("[0-9a-f]{32}", value) for value in found)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Give a file of tokens, and the secrets of two."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    return {scope: create_token(path, scope, [Scope(scope)]) for scope in ("search", "admin")} | {"file": path}


@pytest.fixture(scope="module")
def guarded(collection: Path, secrets: Mapping[str, Any]) -> Iterator[Server]:
    """Give a server that asks for tokens."""
    with running(plain(collection, tokens=secrets["file"])) as started:
        yield started


@pytest.mark.parametrize(
    ("authorization", "refusal"),
    [
        (None, (401, "UNAUTHENTICATED", "UNAUTHENTICATED")),
        ("Bearer ww_wrong", (401, "UNAUTHENTICATED", "UNAUTHENTICATED")),
        ("Basic abc", (401, "UNAUTHENTICATED", "UNAUTHENTICATED")),
        ("Bearer \xff\xfe", (401, "UNAUTHENTICATED", "UNAUTHENTICATED")),
        ("Bearer {admin}", (403, "PERMISSION_DENIED", "SCOPE_MISSING")),
        ("Bearer {search}", None),
        ("bearer {search}", None),
    ],
)
def test_a_token_is_asked_for(
    guarded: Server, secrets: Mapping[str, Any], authorization: str | None, refusal: tuple[int, str, str] | None
) -> None:
    """As over gRPC; the page, which has the field to type it in, needs none."""
    headers: Any = {} if authorization is None else {"authorization": authorization.format(**secrets).encode("latin-1")}

    with browsing(guarded) as client:
        response = client.get("/v1/collection", headers=headers)
        page = client.get("/")

    if refusal is None:
        assert response.status_code == 200
    else:
        assert error(response) == refusal
        assert response.headers.get("www-authenticate") == ("Bearer" if refusal[0] == 401 else None)
    assert page.status_code == 200


def test_who_may_not_ask_is_told_so_before_the_picture_is_sent(guarded: Server) -> None:
    """The head is enough to say it."""
    with connected(guarded) as connection:
        sent = head("POST", "/v1/images:search", Content_Type="application/json", Content_Length="1000000")
        connection.sendall(sent)
        started = time.monotonic()
        status, _ = answer(connection)
        took_s = time.monotonic() - started

    assert status == 401
    assert took_s < 5


def test_browsers_have_their_own_limits_and_share_them_with_their_other_clients(collection: Path) -> None:
    """One upload fills an address's place: its next is refused, over HTTP and over gRPC; another's is not."""
    settings = crowded(collection, limits=Limits(max_concurrent_per_client=1))
    with running(settings) as server, browsing(server) as first, browsing(server, "127.0.0.2") as second:
        with ThreadPoolExecutor(1) as pool, busy(server):
            waiting = pool.submit(first.post, "/v1/images:search", json=UPLOAD)
            wait_until(lambda: len(server._interceptor.limiter) == 1)
            refused = first.get("/v1/collection")
            with grpc.insecure_channel(server.addresses["listen"]) as channel, pytest.raises(grpc.RpcError) as too_many:
                stub_of(channel).GetCollection(pb.GetCollectionRequest())
            other = second.get("/v1/collection")
        answered = waiting.result(PATIENCE_S)

    assert error(refused) == (429, "RESOURCE_EXHAUSTED", "TOO_MANY_REQUESTS")
    assert refused.headers["retry-after"] == "1"
    assert too_many.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert other.status_code == answered.status_code == 200


def test_nobody_else_can_name_a_caller(client: httpx.Client, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by the metadata that the web side names browsers by, nor by a proxy's header."""
    caplog.set_level("INFO", "whatwhere.service.api.interceptor")
    metadata = ((CLIENT, b"\0" * 32 + b"address:ipv4:192.0.2.1"),)
    with grpc.insecure_channel(server.addresses["listen"]) as channel:
        stub_of(channel).GetCollection(pb.GetCollectionRequest(), metadata=metadata)
    client.get("/v1/collection", headers={"x-forwarded-for": "192.0.2.1", "forwarded": "for=192.0.2.1"})

    assert {record.client for record in caplog.records if record.message == "request"} == {"address:ipv4:127.0.0.1"}  # type: ignore[attr-defined]


def test_the_way_between_the_two_is_private(server: Server) -> None:
    """A socket in a folder that no other user may enter."""
    assert server._web is not None
    path = Path(server._web.private_address.removeprefix("unix:"))

    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


# --- what is seen of it -----------------------------------------------------------------------------------------


def test_a_request_is_one_line_and_counted_once(
    guarded: Server, secrets: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Under its id, with the token's name; of an error with its reason. No secret stands there."""
    caplog.set_level("INFO")
    before = numbers(guarded.metrics_port)
    with browsing(guarded, authorization=f"Bearer {secrets['search']}") as client:
        client.get("/v1/images/1", headers={"x-request-id": "one"})
        client.get("/v1/images/99", headers={"x-request-id": "two"})
        client.post("/v1/images:search", content=b"{", headers={**JSON, "x-request-id": "three"})
    after = numbers(guarded.metrics_port)

    lines = [vars(record) for record in caplog.records if record.message == "request"]
    assert [(line["request_id"], line["method"], line["code"], line.get("reason")) for line in lines] == [
        ("one", "GetImage", "OK", None),
        ("two", "GetImage", "NOT_FOUND", "IMAGE_NOT_FOUND"),
        ("three", "SearchImages", "INVALID_ARGUMENT", "INVALID_FIELD"),
    ]
    assert {line["client"] for line in lines} == {"token:search"}
    for labels in ('code="OK",method="GetImage"', 'code="INVALID_ARGUMENT",method="SearchImages"'):
        name = f"whatwhere_requests_total{{{labels}}}"
        assert after[name] - before.get(name, 0) == 1
    assert secrets["search"] not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_a_request_is_a_span_of_its_callers_trace(collection: Path) -> None:
    """The headers of a trace are passed on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    with running(plain(collection)) as server:
        server._interceptor.tracer = Tracer(provider)
        with browsing(server) as client:
            client.get("/v1/images/1", headers=headers)
    provider.shutdown()

    whole = exporter.get_finished_spans()[-1]
    assert whole.parent is not None
    assert (whole.name, f"{whole.parent.span_id:016x}") == ("GetImage", "00f067aa0ba902b7")


def test_what_nobody_waits_for_is_not_done(collection: Path) -> None:
    """A browser that hangs up while its upload waits: the network never sees it."""
    with running(crowded(collection)) as server:
        with busy(server), connected(server) as first, connected(server) as second, connected(server) as third:
            body = json.dumps(UPLOAD).encode()
            for connection in (first, second, third):
                length = str(len(body))
                connection.sendall(
                    head("POST", "/v1/images:search", Content_Type="application/json", Content_Length=length) + body
                )
            wait_until(lambda: server._worker_pools.uploads.waiting == 1)
            for connection in (first, second, third):
                connection.close()
            wait_until(lambda: len(server._interceptor.limiter) == 0)
        wait_until(lambda: server._worker_pools.uploads._inside == 0)
        found = numbers(server.metrics_port)

    assert found['whatwhere_requests_total{code="CANCELLED",method="SearchImages"}'] == 3
    assert found["whatwhere_batch_size_count"] == 0
