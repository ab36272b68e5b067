"""Connections without a token, more of them than a server has room for: those of others are served all the while."""

import errno
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import grpc
import httpx
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.waiting import wait_until
from whatwhere.service.security.connections import client_of, raise_descriptor_limit, room_for
from whatwhere.service.security.tls_files import TlsFiles
from whatwhere.service.server import Server
from whatwhere.service.settings import Limits, ServerSettings

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.takes(10)]

HOST, ATTACKER, OTHERS = "127.0.0.1", "127.0.0.2", [f"127.0.0.{number}" for number in range(3, 11)]
OF_ONE, IN_ALL = 6, 20
REFUSED = 'whatwhere_connections_refused_total{reason="client"}'
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")


@pytest.fixture(scope="module", params=["plain", "tls"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server with all its ports and small limits. It has no collection: connections come before."""
    tls = None
    if request.param == "tls":
        certificate, folder = trustme.CA().issue_cert(HOST), tmp_path_factory.mktemp("tls")
        tls = TlsFiles(folder / "server.pem", folder / "server.key")
        tls.certificate.write_bytes(certificate.cert_chain_pems[0].bytes())
        tls.key.write_bytes(certificate.private_key_pem.bytes())
    limits = Limits(max_connections=IN_ALL, max_connections_per_client=OF_ONE)
    free = f"{HOST}:0"
    server = Server(
        ServerSettings(
            "none.ww",
            listen=free,
            web_listen=free,
            health_listen=free,
            metrics_listen=free,
            tls=tls,
            limits=limits,
            threads=1,
        )
    )
    server.start()
    yield server
    server.stop(None)


def port_of(server: Server, name: str) -> int:
    return int(server.addresses[name].rpartition(":")[2])


def silent(port: int, source: str) -> socket.socket:
    """Return a connection that says nothing; gRPC, HTTP and metrics wait ten seconds for its first bytes."""
    return socket.create_connection((HOST, port), 10, (source, 0))


def speaking(server: Server, source: str) -> socket.socket:
    """Return a connection to the port of health that speaks HTTP/2 and may stay; the guard has seen it."""
    connection = silent(port_of(server, "health"), source)
    connection.sendall(PREFACE)
    wait_until(lambda: server._guard.count() > 0)
    return connection


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


def shut(connections: list[socket.socket]) -> int:
    return sum(not is_open(connection) for connection in connections)


@pytest.mark.parametrize("name", ["listen", "web", "health", "metrics"])
def test_one_client_has_so_many_connections_and_no_more(guarded: Server, name: str) -> None:
    """On every port, before TLS and tokens; its first ones stay, and others are answered."""
    with ExitStack() as open_:
        before = refused(guarded)
        wait_until(lambda: guarded._guard.count() == 0)  # the connection that read this is gone
        first = open_.enter_context(speaking(guarded, ATTACKER))
        many = [open_.enter_context(silent(port_of(guarded, name), ATTACKER)) for _ in range(2 * OF_ONE)]
        wait_until(lambda: shut(many) >= OF_ONE + 1)
        answer = health(guarded)

        assert is_open(first)
        assert answer == health_pb2.HealthCheckResponse.NOT_SERVING
        assert refused(guarded) > before


def health(server: Server) -> int:
    with grpc.insecure_channel(server.addresses["health"]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status)


def answers(server: Server) -> bool:
    """Tell whether a new client is answered; gRPC refuses it for a moment, until what was shut down is closed."""
    try:
        return health(server) == health_pb2.HealthCheckResponse.NOT_SERVING
    except grpc.RpcError:
        return False


def refused(server: Server) -> float:
    lines = httpx.get(f"http://{server.addresses['metrics']}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(REFUSED))


def test_all_clients_together_have_so_many_connections_and_no_more(guarded: Server) -> None:
    """Who has the most loses the newest: many addresses do not lock out one that has a single connection."""
    with ExitStack() as open_:
        port = port_of(guarded, "health")
        wait_until(lambda: guarded._guard.count() == 0)
        lone = open_.enter_context(speaking(guarded, ATTACKER))
        many: list[socket.socket] = []
        for _ in range(4):
            with suppress(OSError):  # gRPC hangs up beyond its own limit
                many += [open_.enter_context(silent(port, source)) for source in OTHERS]
        wait_until(lambda: len(many) - shut(many) <= IN_ALL - 1)
        wait_until(lambda: answers(guarded))

        assert is_open(lone)
    wait_until(lambda: guarded._guard.count() <= 1)


@pytest.mark.parametrize(
    ("addresses", "clients"),
    [
        (["10.0.0.1", "10.0.0.1", "10.0.0.2"], 2),
        (["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"], 2),  # one network of 64 bits is one client
    ],
)
def test_clients_are_addresses_or_networks(addresses: list[str], clients: int) -> None:
    """An IPv6 client chooses the second half of its address as it likes."""
    assert len({client_of(address) for address in addresses}) == clients


def test_the_limit_of_open_files_is_raised_and_bounds_the_connections(caplog: pytest.LogCaptureFixture) -> None:
    """To the most that this process may have; what is too low for the connections is said by its name."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(600, before[1]), before[1]))
        few = room_for(10_000)
        raise_descriptor_limit()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert few == int((600 - 128) / 1.25)
    assert raised == (before[1], before[1])
    assert [(record.open_files, record.connections) for record in caplog.records] == [(600, few)]  # type: ignore[attr-defined]
