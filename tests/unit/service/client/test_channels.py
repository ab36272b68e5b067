"""The client and several small real servers: whom it asks, whom it leaves out, whom it believes."""

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress

import grpc
import pytest
import trustme

from tests.ports import free_port
from tests.scripted_server import ScriptedServer, refusing, serving, well
from tests.waiting import wait_until
from whatwhere.indexer import errors
from whatwhere.service.client import channels
from whatwhere.service.client.client import Client

TOKEN = "a-token-nobody-may-see"


def nobody() -> str:
    """Return an address where nobody listens."""
    return f"127.0.0.1:{free_port()}"


def ask_until(client: Client, holds: Callable[[], bool]) -> None:
    """Ask again and again, without any failure, until something is so."""

    def asked() -> bool:
        client.collection()
        return holds()

    wait_until(asked)


# --- whom it asks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["list", "commas", "scheme", "names"])
def test_calls_go_in_turn_to_all_addresses(form: str) -> None:
    """Each has a fair share, however they were given."""
    one, two = ScriptedServer(well), ScriptedServer(well)

    with serving(one) as first, serving(two) as second:
        by_name = [f"localhost:{address.rpartition(':')[2]}" for address in (first, second)]
        given = {"list": [first, second], "commas": f"{first}, {second}", "scheme": f"ipv4:{first},{second}"}
        with Client(given.get(form, by_name)) as client:
            ask_until(client, lambda: bool(one.calls and two.calls))
            before = len(one.calls), len(two.calls)
            for _ in range(20):
                client.collection()
            shares = len(one.calls) - before[0], len(two.calls) - before[1]

    assert shares == (10, 10)


def test_ipv4_and_ipv6_go_together() -> None:
    """One server of each."""
    one, two = ScriptedServer(well), ScriptedServer(well)
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")

    with serving(one) as first, serving(two, listen="[::1]:0") as second, Client([first, second]) as client:
        ask_until(client, lambda: bool(one.calls and two.calls))

    assert one.calls
    assert two.calls


def test_what_one_server_refuses_as_unavailable_another_answers() -> None:
    """The caller sees no failure."""
    away, there = ScriptedServer(refusing(grpc.StatusCode.UNAVAILABLE)), ScriptedServer(well)

    with serving(away) as first, serving(there) as second, Client([first, second]) as client:
        ask_until(client, lambda: bool(away.calls and there.calls))

    assert away.calls


def test_where_one_does_not_listen_the_others_answer() -> None:
    """From the first call on; where nobody listens, the error names all."""
    alone, (gone, lost) = ScriptedServer(well), (nobody(), nobody())

    with serving(alone) as address, Client([gone, address, lost]) as client:
        generations = [client.collection().generation for _ in range(20)]
    with Client([gone, lost], timeout_s=10) as client, pytest.raises(errors.ServerUnreachable) as caught:
        client.collection()

    assert generations == [3] * 20
    assert f"no answer from {gone}, {lost}" in str(caught.value)


def test_a_server_that_says_it_is_not_serving_is_not_asked_until_it_is() -> None:
    """By the standard health service, which each connection watches."""
    one, two = ScriptedServer(well), ScriptedServer(well)

    with serving(one) as first, serving(two) as second, Client([first, second]) as client:
        one.says(serving=False)
        wait_until(lambda: _calls_of_ten(client, one) == 0)
        while_away = _calls_of_ten(client, one)
        one.says(serving=True)
        ask_until(client, lambda: _calls_of_ten(client, one) > 0)

    assert while_away == 0


def _calls_of_ten(client: Client, told: ScriptedServer) -> int:
    """Return how many of ten calls this server gets."""
    before = len(told.calls)
    for _ in range(10):
        client.collection()
    return len(told.calls) - before


def test_a_server_alone_is_asked_whatever_it_says() -> None:
    """What it answers then says more than that nobody is serving."""
    told = ScriptedServer(well)
    told.says(serving=False)

    with serving(told) as address, Client(address) as client:
        generation = client.collection().generation

    assert generation == 3


def test_a_proxy_is_not_asked_for_several_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be told to connect to the list, as if that were one name."""
    monkeypatch.setenv("http_proxy", f"http://{nobody()}")
    told = ScriptedServer(well)

    with serving(told) as address, Client([address, "192.0.2.1:1"], timeout_s=10) as client:
        generation = client.collection().generation

    assert generation == 3


# --- each by itself -----------------------------------------------------------------------------------------------


def test_each_server_can_be_asked_by_itself() -> None:
    """In the order they were given, by the same token; one alone is the client."""
    one, two = ScriptedServer(well), ScriptedServer(well)

    with serving(one) as first, serving(two) as second, Client([first, second], token=TOKEN) as client:
        clients = client.servers()
        for asked, times in zip(clients, (3, 1), strict=True):
            for _ in range(times):
                asked.collection()
        again = client.servers()
        with Client(first) as single:
            assert single.servers() == (single,)

    assert [asked.address for asked in clients] == [first, second]
    assert (len(one.calls), len(two.calls)) == (3, 1)
    assert {call["authorization"] for call in one.calls + two.calls} == {f"Bearer {TOKEN}"}
    assert again == clients
    with pytest.raises(ValueError, match="closed"):  # with the one they came from
        clients[0].collection()


def test_the_servers_of_a_dns_name_are_asked_by_their_addresses() -> None:
    """Together by the name, by themselves by what it stands for."""
    told = ScriptedServer(well)

    with serving(told) as address, Client(f"dns:///localhost:{address.rpartition(':')[2]}") as client:
        together = client.collection().generation
        by_address = {asked.address: asked for asked in client.servers()}
        alone = by_address[address].collection().generation

    assert (together, alone) == (3, 3)


def test_a_refresh_reaches_all_servers() -> None:
    """It returns what the one serves that is furthest behind."""
    ahead, behind = ScriptedServer(well, generation=6), ScriptedServer(well, generation=5)

    with serving(ahead) as first, serving(behind) as second, Client([first, second]) as client:
        refreshed = client.refresh()

    assert refreshed.generation == 5
    assert (len(ahead.calls), len(behind.calls)) == (1, 1)


def test_health_is_that_of_all_servers() -> None:
    """One that is not serving is enough, and one that does not answer is an error."""
    one, two = ScriptedServer(well), ScriptedServer(well)

    with serving(one) as first, serving(two) as second:
        with Client([first, second]) as client:
            both = client.health()
            two.says(serving=False)
            not_both = client.health()
        with Client([first, gone := nobody()]) as client, pytest.raises(errors.ServerUnreachable, match=gone):
            client.health()

    assert (both, not_both) == (True, False)


# --- TLS ----------------------------------------------------------------------------------------------------------


AUTHORITY = trustme.CA()


def trusting() -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(AUTHORITY.cert_pem.bytes())


def certified(*names: str) -> grpc.ServerCredentials:
    """Return a server's credentials: a certificate for these names."""
    issued = AUTHORITY.issue_cert(*names)
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    return grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])


def test_several_servers_are_believed_by_the_name_they_share() -> None:
    """All together and each by itself; a certificate for another name keeps its server from every call."""
    one, two, stranger = ScriptedServer(well), ScriptedServer(well), ScriptedServer(well)
    shared = "search.example.org"

    with ExitStack() as stack:
        addresses = [
            stack.enter_context(serving(told, credentials=certified(*names)))
            for told, names in ((one, ("a.example.org", shared)), (two, (shared,)), (stranger, ("other.example.org",)))
        ]
        arguments = {"token": TOKEN, "credentials": trusting(), "server_name": shared}
        client = stack.enter_context(Client(addresses, **arguments))
        ask_until(client, lambda: min(len(one.calls), len(two.calls)) >= 10)
        alone = [asked.collection().generation for asked in client.servers()[:2]]
        with pytest.raises(errors.ServerUnreachable, match=addresses[2]):
            client.servers()[2].collection()

    assert alone == [3, 3]
    assert stranger.calls == []


def test_without_a_shared_name_several_servers_are_refused_by_tls() -> None:
    """Before anything is sent; and a name without TLS would check nothing."""
    with pytest.raises(errors.InvalidRequest, match="--server-name") as unnamed:
        Client("10.0.0.5:1,10.0.0.6:1", credentials=trusting())
    with pytest.raises(errors.InvalidRequest, match="needs TLS") as in_plain_text:
        Client("10.0.0.5:1", server_name="search.example.org")

    assert unnamed.value.field == in_plain_text.value.field == "server_name"


@pytest.mark.parametrize(
    ("names", "server_name", "answered"),
    [
        (("127.0.0.1",), None, True),
        (("search.example.org",), None, False),
        (("search.example.org",), "search.example.org", True),
        (("127.0.0.1",), "search.example.org", False),
    ],
)
def test_a_server_alone_is_believed_by_its_address_or_the_name(
    names: tuple[str, ...], server_name: str | None, answered: bool
) -> None:
    """The name takes the address's place: it is not believed beside it."""
    told = ScriptedServer(well)

    with (
        serving(told, credentials=certified(*names)) as address,
        Client(address, credentials=trusting(), server_name=server_name, timeout_s=10) as client,
        suppress(errors.ServerUnreachable),
    ):
        client.collection()

    assert bool(told.calls) is answered


def test_the_servers_of_a_dns_name_are_believed_by_it() -> None:
    """Together, and each by its address."""
    told = ScriptedServer(well)

    with (
        serving(told, credentials=certified("localhost")) as address,
        Client(f"dns:///localhost:{address.rpartition(':')[2]}", credentials=trusting()) as client,
    ):
        together = client.collection().generation
        alone = next(asked for asked in client.servers() if asked.address == address).collection().generation

    assert (together, alone) == (3, 3)


# --- a connection that is cut without a word -----------------------------------------------------------------------


def test_a_connection_that_was_cut_silently_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a firewall or an address translation cuts it: what is sent is taken, and nothing comes back."""
    monkeypatch.setattr(channels, "_PING_AFTER_MS", 300)
    monkeypatch.setattr(channels, "_PING_ANSWERED_MS", 300)
    with (
        serving(ScriptedServer(well)) as address,
        _Relay(address) as relay,
        Client(relay.address, timeout_s=20) as client,
    ):
        client.collection()
        relay.cut()
        client.collection()
    assert relay.connections == 2


class _Relay:
    """Passes bytes on between clients and a server; `cut` makes the open connections swallow them."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._to = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        self._cut = 0  # connections up to this one
        self._open: list[socket.socket] = []

    def __enter__(self) -> "_Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def cut(self) -> None:
        self._cut = self.connections

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                ends = self._listening.accept()[0], socket.create_connection(self._to)
                self._open += ends
                self.connections += 1
                for source, sink in (ends, ends[::-1]):
                    threading.Thread(target=self._pass_on, args=(self.connections, source, sink), daemon=True).start()

    def _pass_on(self, number: int, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # closed
            while content := source.recv(65536):
                if number > self._cut:
                    sink.sendall(content)
