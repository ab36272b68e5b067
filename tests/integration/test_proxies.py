"""The page, its API and gRPC behind nginx, Caddy and Envoy, with the files of `deploy/proxies/`: whom limits count."""

import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme

from tests.browsing import PATIENCE_S, UPLOAD, error, plain, port_of, running
from tests.proxies import NAME, proxying
from whatwhere.service.client.client import Client
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.security.tls import channel_credentials
from whatwhere.service.server import Server
from whatwhere.service.settings import Limits

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Behind:
    """A server behind a proxy."""

    port: int
    ca: Path

    def browser(self, source: str = "127.0.0.1", *, http2: bool = False) -> httpx.Client:
        """Return a client that calls the proxy by the page's name, from a source address."""
        context = ssl.create_default_context(cafile=str(self.ca))
        transport = httpx.HTTPTransport(verify=context, local_address=source, http2=http2)
        address = f"https://127.0.0.1:{self.port}"
        return httpx.Client(base_url=address, transport=_Named(transport), headers={"host": NAME}, timeout=PATIENCE_S)

    def raw(self, sent: bytes) -> bytes:
        """Return what the proxy answers to these bytes, at least the head."""
        context = ssl.create_default_context(cafile=str(self.ca))
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as bare,
            context.wrap_socket(bare, server_hostname=NAME) as connection,
        ):
            connection.sendall(sent)
            answer = b""
            while b"\r\n\r\n" not in answer and (piece := connection.recv(65536)):
                answer += piece
            return answer


class _Named(httpx.BaseTransport):
    """Ask for the certificate of the page's name."""

    def __init__(self, transport: httpx.HTTPTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        request.extensions["sni_hostname"] = NAME
        return self._transport.handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


@pytest.fixture(scope="module")
def server(collection: Path) -> Iterator[Server]:
    """Give a server that trusts the proxies."""
    limits = Limits(receive_s=4.0)
    with running(plain(collection, limits=limits, web_hosts=(NAME,), trusted_proxies=("127.0.0.1",))) as started:
        yield started


@pytest.fixture(scope="module", params=["nginx", "caddy", "envoy"])
def behind(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    """Give it behind each of the proxies."""
    authority, folder = trustme.CA(), tmp_path_factory.mktemp(request.param)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    upstream = {"page": port_of(server), "api": server.port}
    with proxying(request.param, folder, authority, upstream) as port:
        yield Behind(port, folder / "ca.pem")


def test_page_and_api_are_answered(behind: Behind) -> None:
    """At the root and under a path; an upload with `Expect: 100-continue`, and one longer than a proxy's buffers."""
    paths = ("/", "/page/app.js", "/v1/collection", "/photos/", "/photos/page/app.js", "/photos/v1/collection")
    with behind.browser() as browser:
        statuses = [browser.get(path).status_code for path in paths]
        beside = browser.get("/photos")
        found = browser.post("/photos/v1/images:search", json=UPLOAD, headers={"expect": "100-continue"})
        unreadable = browser.post("/v1/images:search", json={"imageContent": "A" * (30 << 20)})

    assert statuses == [200] * 6
    assert (beside.status_code in (301, 308), beside.headers["location"].endswith("/photos/")) == (True, True)
    assert found.json()["hits"][0]["image"]["name"].startswith("images/")
    assert error(unreadable)[2] == "UNREADABLE_IMAGE"


def test_grpc_is_answered(behind: Behind) -> None:
    """As by the server itself."""
    credentials = channel_credentials(behind.ca)
    with Client(f"127.0.0.1:{behind.port}", credentials=credentials, server_name=NAME) as client:
        assert client.collection().image_count == 8
        assert client.health()


def test_limits_count_people_and_not_the_proxy(behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    """Over HTTP and gRPC; what a client says of itself is not believed."""
    caplog.set_level("INFO", "whatwhere.service.api.interceptor")
    forged = {"x-forwarded-for": "192.0.2.1", "forwarded": "for=192.0.2.1", "x-real-ip": "192.0.2.1"}
    message = pb.GetCollectionRequest().SerializeToString()
    with behind.browser("127.0.0.2") as first, behind.browser("127.0.0.3", http2=True) as second:
        first.get("/v1/collection", headers=forged)
        answer = second.post(
            "/whatwhere.v1.ImageSearchService/GetCollection",
            content=b"\0" + struct.pack(">I", len(message)) + message,
            headers={"content-type": "application/grpc", "te": "trailers", **forged},
        )

    assert pb.GetCollectionResponse.FromString(answer.content[5:]).collection.image_count == 8
    clients = [record.client for record in caplog.records if record.message == "request"]  # type: ignore[attr-defined]
    assert clients == ["address:ipv4:127.0.0.2", "address:ipv4:127.0.0.3"]


POST = f"POST /v1/images:search HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\n"
GET = f"GET /v1/collection HTTP/1.1\r\nHost: {NAME}\r\n"
ATTACKS = {
    "another name": "GET /v1/collection HTTP/1.1\r\nHost: evil.example\r\n",
    "another name, forwarded": f"GET /v1/collection HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: {NAME}\r\n",
    "another name as target": f"GET http://evil.example/v1/collection HTTP/1.1\r\nHost: {NAME}\r\n",
    "another site": f"{GET}Sec-Fetch-Site: cross-site\r\n",
    "another site, under the path": f"{GET}Sec-Fetch-Site: cross-site\r\n".replace("/v1", "/photos/v1", 1),
    "out of the folder": f"GET /page/..%2fapp.py HTTP/1.1\r\nHost: {NAME}\r\n",
    "out of the path": f"GET /photos/../../etc/passwd HTTP/1.1\r\nHost: {NAME}\r\n",
    "two lengths": f"{POST}Content-Length: 1\r\nContent-Length: 2\r\n",
    "length and chunks": f"{POST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "a large head": f"{GET}X: {'x' * 40_000}\r\n",
    "a large body": f"{POST}Content-Length: {2**33}\r\n",
    "not JSON": f"POST /v1/images:search HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 0\r\n",
}


def test_attacks_are_refused(behind: Behind) -> None:
    """By the proxy or by the server; Caddy answers other names itself, with nothing."""
    answers = {name: behind.raw(f"{head}Connection: close\r\n\r\n".encode()) for name, head in ATTACKS.items()}

    nothing = b"Server: Caddy\r\n"
    assert {
        name: answer[:400]
        for name, answer in answers.items()
        if answer[9:10] != b"4" and not (nothing in answer and b"Content-Length: 0\r\n" in answer)
    } == {}


def test_absolute_targets_are_answered(behind: Behind) -> None:
    """As HTTP/1.1 wants of every server."""
    head = f"GET https://{NAME}/v1/collection HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"

    assert behind.raw(head.encode()).startswith(b"HTTP/1.1 200 ")
