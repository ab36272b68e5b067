"""A server behind reverse proxies: health for load balancers, a path prefix, Unix sockets, whom it counts."""

import socket
from pathlib import Path

import grpc
import httpx
import pytest

from tests.browsing import PATIENCE_S, browsing, connected, error, head, plain, rest, running
from tests.integration.test_web_attacked import from_address, serves
from whatwhere.service.client.client import Client
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc
from whatwhere.service.server import Server
from whatwhere.service.settings import Limits, ServerSettings

pytestmark = pytest.mark.usefixtures("one_thread")

NAME = "photos.example.org"


def test_health_over_http_is_that_over_grpc(collection: Path) -> None:
    """Starting, serving and draining, by any name and in any version of HTTP; others are answered all along."""
    server = Server(plain(collection))
    server.start()
    try:
        with browsing(server) as client:
            starting = client.get("/health")
            alive = client.get("/health", params={"service": "whatwhere.v1.Live"})
            server.open()
            serving = client.get("/health", headers={"host": "10.1.2.3"})
            unknown = client.get("/health", params={"service": "nothing"})
            with connected(server) as connection:
                connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                old = rest(connection)
            server.drain()
            draining, answered = client.get("/health"), client.get("/v1/collection")
    finally:
        server.stop(grace=None)

    assert (starting.status_code, starting.json()) == (503, {"status": "NOT_SERVING"})
    assert (alive.status_code, serving.status_code, old[9:12]) == (200, 200, b"200")
    assert serving.json() == {"status": "SERVING"}
    assert serving.headers["cache-control"] == "no-store"
    assert error(unknown) == (404, "NOT_FOUND", "NO_SUCH_SERVICE")
    assert (draining.status_code, answered.status_code) == (503, 200)


def test_a_path_prefix_may_be_there_or_removed(collection: Path) -> None:
    """What is checked of a request is checked under it, too."""
    with running(plain(collection, web_path="/photos/")) as server, browsing(server) as client:
        found = [client.get(f"{prefix}{path}").status_code for prefix in ("", "/photos") for path in PATHS]
        beside, other = client.get("/photos"), client.get("/photosynthesis/")
        crossed = client.get("/photos/v1/collection", headers={"sec-fetch-site": "cross-site"})

    assert found == [200] * 2 * len(PATHS)
    assert (beside.status_code, beside.headers["location"]) == (308, "/photos/")
    assert other.status_code == 404
    assert error(crossed) == (403, "PERMISSION_DENIED", "CROSS_SITE")


PATHS = ("/", "/page/app.js", "/v1/collection", "/v1/images/1/content", "/health")


def test_absolute_targets_are_their_paths(collection: Path) -> None:
    """If both names, its own and that of Host, are ours."""
    targets = {
        ("http://localhost:1/v1/collection", "localhost"): b"200",
        ("HTTPS://localhost/v1/images?pageSize=1", "localhost"): b"200",
        ("http://localhost", "localhost"): b"200",
        ("http://localhost/page/app.js", "localhost"): b"200",
        ("http://evil.example/v1/collection", "localhost"): b"421",
        ("http://localhost/v1/collection", "evil.example"): b"421",
        ("http://me@localhost/v1/collection", "localhost"): b"421",
        ("ftp://localhost/v1/collection", "localhost"): b"404",
        ("*", "localhost"): b"404",
    }
    found = {}
    with running(plain(collection)) as server:
        for target, host in targets:
            with connected(server) as connection:
                connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                found[target, host] = rest(connection)[9:12]

    assert found == targets


def test_limits_count_the_clients_of_a_trusted_proxy(collection: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its connections are limited in all alone; another peer that says the same is not believed."""
    caplog.set_level("INFO", "whatwhere.service.api.interceptor")
    limits = Limits(max_web_connections=5, max_web_connections_per_client=2)
    settings = plain(collection, limits=limits, trusted_proxies=("127.0.0.2", "127.0.0.1"), web_hosts=(NAME,))
    forwarded = {"x-forwarded-for": "192.0.2.1", "x-forwarded-host": NAME}
    with running(settings) as server:
        opened = [from_address(server, source) for source in ["127.0.0.2"] * 3 + ["127.0.0.3"] * 3]
        served = [serves(connection) for connection in opened]
        for connection in opened:
            connection.close()
        caplog.clear()
        for source in ("127.0.0.2", "127.0.0.3"):
            with browsing(server, source) as client:
                client.get("/v1/collection", headers=forwarded)
                wrong = client.get("/", headers={"x-forwarded-host": f"{NAME}, evil.example"}).status_code
                assert wrong == (421 if source == "127.0.0.2" else 200)
        with grpc.insecure_channel(server.addresses["listen"]) as channel:
            stub = rpc.ImageSearchServiceStub(channel)  # type: ignore[no-untyped-call] # generated
            stub.GetCollection(pb.GetCollectionRequest(), metadata=(("x-forwarded-for", "192.0.2.9"),))

    assert served == [True] * 5 + [False]
    clients = [record.client for record in caplog.records if record.message == "request"]  # type: ignore[attr-defined]
    assert clients == ["address:ipv4:192.0.2.1", "address:ipv4:127.0.0.3", "address:ipv4:192.0.2.9"]


def test_all_is_answered_over_unix_sockets(collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Which need no TLS; a proxy there names its clients; they are gone in the end."""
    caplog.set_level("INFO", "whatwhere.service.api.interceptor")
    page, api = tmp_path / "page", tmp_path / "api"
    settings = ServerSettings(
        collection, listen=f"unix:{api}", web_listen=f"unix:{page}", web_hosts=(NAME,), trusted_proxies=("unix",)
    )
    with running(settings) as server:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(page)), timeout=PATIENCE_S) as client:
            statuses = [
                client.get(f"http://{name}/v1/collection", headers={"x-forwarded-for": "192.0.2.1"}).status_code
                for name in ("localhost", NAME, "evil.example")
            ]
        with Client(f"unix:{api}") as grpc_client:
            count = grpc_client.collection().image_count
        addresses = server.addresses
        with pytest.raises(Exception, match="in use by another process"):
            Server(ServerSettings(collection, listen=f"unix:{api}"))

    assert statuses == [200, 200, 421]
    assert count == 8
    assert addresses == {"listen": f"unix:{api}", "web": f"unix:{page}"}
    assert (page.exists(), api.exists()) == (False, False)
    clients = [record.client for record in caplog.records if record.message == "request"]  # type: ignore[attr-defined]
    assert clients == ["address:ipv4:192.0.2.1"] * 2 + ["address:unix"]


def test_old_http_is_answered(collection: Path) -> None:
    """Some proxies speak it to servers."""
    with running(plain(collection)) as server, connected(server) as connection:
        connection.sendall(head("GET", "/v1/collection").replace(b"HTTP/1.1", b"HTTP/1.0"))
        said = rest(connection)

    assert said[9:12] == b"200"
    assert b'"imageCount"' in said


def test_a_dual_stack_server_knows_ipv4_clients_as_such(collection: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also as proxies that are trusted."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    caplog.set_level("INFO", "whatwhere.service.api.interceptor")
    settings = plain(
        collection, listen="[::]:0", web_listen="[::]:0", allow_insecure=True, trusted_proxies=("127.0.0.2",)
    )
    with running(settings) as server:
        for source in ("127.0.0.2", "127.0.0.3"):
            with browsing(server, source) as client:
                client.get("/v1/collection", headers={"x-forwarded-for": "192.0.2.1"})
        port = server.addresses["web"].rpartition(":")[2]
        with httpx.Client(timeout=PATIENCE_S) as six:
            six.get(f"http://[::1]:{port}/v1/collection")

    clients = [record.client for record in caplog.records if record.message == "request"]  # type: ignore[attr-defined]
    assert clients == ["address:ipv4:192.0.2.1", "address:ipv4:127.0.0.3", "address:ipv6:%5B::1%5D"]
