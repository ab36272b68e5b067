"""Why a server cannot be reached: each trouble is made, and named by its own words and remedy."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
import trustme

from tests.ports import free_port
from whatwhere.indexer.errors import ServerUnreachable
from whatwhere.service.client.client import Client
from whatwhere.service.client.targets import to_target
from whatwhere.service.client.unreachable import proxy_of
from whatwhere.service.security.tls import channel_credentials

HOST = "127.0.0.1"
ELSEWHERE = "192.0.2.1:50051"  # no machine has it: only a proxy would answer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give who signs the certificates that are believed."""
    return trustme.CA()


@pytest.fixture
def believing(authority: trustme.CA, tmp_path: Path) -> grpc.ChannelCredentials:
    """Give the credentials of a client that knows it."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return channel_credentials(tmp_path / "ca.pem")


@contextmanager
def showing(certificate: trustme.LeafCert | None, *, shown: int = 9, client_ca: bytes | None = None) -> Iterator[str]:
    """Run a server that shows the first certificates of a chain, or none at all."""
    server = grpc.server(ThreadPoolExecutor(1))
    if certificate is None:
        port = server.add_insecure_port(f"{HOST}:0")
    else:
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems[:shown])
        pairs = [(certificate.private_key_pem.bytes(), chain)]
        port = server.add_secure_port(f"{HOST}:0", grpc.ssl_server_credentials(pairs, client_ca, client_ca is not None))
    server.start()
    yield f"{HOST}:{port}"
    server.stop(None).wait()


@contextmanager
def refusing_proxy() -> Iterator[str]:
    """Run an HTTP server that answers 501 to CONNECT, and speaks no gRPC."""

    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((HOST, 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{HOST}:{server.server_port}"
        server.shutdown()


def why(address: str, credentials: grpc.ChannelCredentials | None = None) -> str:
    """Return the error of a client."""
    with Client(address, credentials=credentials, timeout_s=20) as client, pytest.raises(ServerUnreachable) as caught:
        client.health()
    message = str(caught.value)
    assert message.startswith(f"no answer from {address}: ")
    return message


def test_troubles_with_certificates_are_told_apart(
    authority: trustme.CA, believing: grpc.ChannelCredentials, tmp_path: Path
) -> None:
    """Each with its own remedy."""
    past, future = datetime(2020, 1, 1, tzinfo=UTC), datetime(2035, 1, 1, tzinfo=UTC)
    of_child = authority.create_child_ca().issue_cert(HOST)
    troubles = {
        "is for another name: connect by a name": {"certificate": authority.issue_cert("find.example")},
        "has expired: renew it": {"certificate": authority.issue_cert(HOST, not_after=past)},
        "is not valid yet: wait, or set the clock": {
            "certificate": authority.issue_cert(HOST, not_before=future, not_after=future.replace(year=2036))
        },
        "is not signed by a CA that is trusted here": {"certificate": trustme.CA().issue_cert(HOST)},
        "or its chain lacks an intermediate": {"certificate": of_child, "shown": 1},
        "it answers without TLS": {"certificate": None},
        "it may want a client certificate": {
            "certificate": authority.issue_cert(HOST),
            "client_ca": authority.cert_pem.bytes(),
        },
    }
    with ExitStack() as servers:
        addresses = {said: servers.enter_context(showing(**how)) for said, how in troubles.items()}  # type: ignore[arg-type] # by name
        found = {said: why(address, believing) for said, address in addresses.items()}
        with_tls = servers.enter_context(showing(authority.issue_cert(HOST)))
        plain = why(with_tls)

    assert {said: message for said, message in found.items() if said not in message} == {}
    assert "it may want TLS (--tls, --ca FILE)" in plain


def test_troubles_of_the_network_are_told_apart(tmp_path: Path) -> None:
    """Nobody there, a name of nobody, another protocol, no socket."""
    with refusing_proxy() as page:
        found = {
            "nothing listens there": why(f"{HOST}:{free_port()}"),
            "the name has no address": why("no-such-name.invalid:50051"),
            "it does not speak gRPC": why(page),
            "there is no such socket": why(f"unix:{tmp_path / 'absent'}"),
        }

    assert {said: message for said, message in found.items() if said not in message} == {}


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_a_proxy_of_the_environment_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its address, without its password, whether it refuses or is not there."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with refusing_proxy() as proxy:
        monkeypatch.setenv(variable, f"http://me:s3cret@{proxy}")
        refused = why(ELSEWHERE)
    nobody = f"{HOST}:{free_port()}"
    monkeypatch.setenv(variable, f"http://{nobody}")
    gone = why(ELSEWHERE)

    remedy = "unset it, or add 192.0.2.1 to no_proxy"
    assert (
        f"the proxy does not let it through; the variable {variable} leads connections through {proxy}: {remedy}"
        in (refused)
    )
    assert f"was refused, there or by the proxy; the variable {variable} leads connections through {nobody}: " in gone
    assert "s3cret" not in refused


@pytest.mark.parametrize(
    ("address", "environment", "named"),
    [
        ("find.example:1", {"http_proxy": "http://p:3128"}, True),
        ("dns:///find.example:1", {"http_proxy": "http://p:3128"}, True),
        ("find.example:1", {"http_proxy": "http://p:3128", "no_proxy": "other.example"}, True),
        ("find.example:1", {"http_proxy": "http://p:3128", "no_proxy": "other,.example"}, False),
        ("find.example:1", {"http_proxy": ""}, False),
        ("find.example:1", {"HTTP_PROXY": "http://p:3128"}, False),  # which gRPC does not read
        ("localhost:1", {"http_proxy": "http://p:3128"}, False),
        ("10.0.0.1:1,10.0.0.2:1", {"http_proxy": "http://p:3128"}, False),
        ("unix:/run/s", {"http_proxy": "http://p:3128"}, False),
    ],
)
def test_a_proxy_that_is_not_used_is_not_named(address: str, environment: dict[str, str], named: bool) -> None:
    """On this machine, for several servers, and where no_proxy says so."""
    assert bool(proxy_of(to_target(address), environment)) is named


def test_a_machine_that_does_not_answer_is_waited_for_until_the_timeout() -> None:
    """Somebody listens and never says a word."""
    with socket.create_server((HOST, 0)) as silent:
        address = f"{HOST}:{silent.getsockname()[1]}"
        with Client(address, timeout_s=0.5) as client, pytest.raises(Exception, match=r"within 0\.5 s: set a longer"):
            client.health()
