"""Which proxies are believed, whom they name, and host names as people write them."""

import pytest

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service.web.forwarding import TrustedProxies, client_name
from whatwhere.service.web.guard import Hosts, read_prefix
from whatwhere.service.web.host_names import read_host_names


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("ipv4:10.0.0.1:5", "192.0.2.1", "address:ipv4:192.0.2.1"),
        ("ipv4:10.0.0.1:5", "203.0.113.7, 192.0.2.1", "address:ipv4:192.0.2.1"),  # the first was the client's own word
        ("ipv4:10.0.0.1:5", "192.0.2.1, 10.1.2.3", "address:ipv4:192.0.2.1"),  # two proxies
        ("ipv4:10.0.0.1:5", "192.0.2.1:4711", "address:ipv4:192.0.2.1"),
        ("ipv4:10.0.0.1:5", "[2001:DB8::1]:4711", "address:ipv6:%5B2001:db8::1%5D"),
        ("ipv4:10.0.0.1:5", "::ffff:192.0.2.1", "address:ipv4:192.0.2.1"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:5", "192.0.2.1", "address:ipv4:192.0.2.1"),  # of a dual-stack socket
        ("ipv6:%5B2001:db8::9%5D:5", "192.0.2.1", "address:ipv4:192.0.2.1"),
        ("unix:", "192.0.2.1", "address:ipv4:192.0.2.1"),
        ("ipv4:10.0.0.1:5", "unknown", None),
        ("ipv4:10.0.0.1:5", "", None),
        ("ipv4:11.0.0.1:5", "192.0.2.1", None),
        ("ipv6:%5B2001:db8::8%5D:5", "192.0.2.1", None),
    ],
)
def test_a_trusted_proxy_names_its_client(peer: str, forwarded_for: str, client: str | None) -> None:
    """The last address that is not a proxy's; nobody else names anybody."""
    proxies = TrustedProxies(["10.0.0.0/8, 2001:db8::9", "unix"])

    assert proxies.client_of(peer, forwarded_for) == client


def test_without_trusted_proxies_nobody_is_believed() -> None:
    """As it is by default."""
    assert TrustedProxies([]).client_of("ipv4:127.0.0.1:5", "192.0.2.1") is None
    assert not TrustedProxies([]).trust("127.0.0.1")
    assert not TrustedProxies([]).trust("unix")


@pytest.mark.parametrize("text", ["*", "0.0.0.0/0", "::/0", "proxy.example", "10.0.0.5/8", "10.0.0.1:80", "unix:/s"])
def test_what_is_no_proxys_address_is_refused(text: str) -> None:
    """By its text; all of the internet is nobody in particular."""
    with pytest.raises(InvalidRequest, match=r"give its IP address \(10\.0\.0\.5\)") as refused:
        TrustedProxies(["10.0.0.5", text])

    assert repr(text) in str(refused.value)
    assert refused.value.field == "trusted_proxies"


def test_a_client_without_an_address_has_no_name() -> None:
    """What a header says is not written to the log as it is."""
    assert client_name("evil\nlog") is None


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("https://Find.Example/photos?x=1", {"find.example"}),
        ("find.example:8443", {"find.example"}),
        ("a.example, b.example c.example", {"a.example", "b.example", "c.example"}),
        ("find.example.", {"find.example"}),
        ("Bücher.example", {"xn--bcher-kva.example"}),
        ("straße.example", {"xn--strae-oqa.example"}),  # as browsers have it, not strasse
        ("ﬁnd.bücher.example", {"find.xn--bcher-kva.example"}),  # with a ligature, copied from a text
        ("2001:DB8:0::1", {"[2001:db8::1]"}),
        ("[2001:db8::1]:8443", {"[2001:db8::1]"}),
        ("http://[::1]:80", {"[::1]"}),
        ("192.0.2.7", {"192.0.2.7"}),
        ("my_service", {"my_service"}),
    ],
)
def test_host_names_are_taken_as_people_write_them(given: str, names: set[str]) -> None:
    """And known as browsers send them."""
    assert read_host_names((given,)) == names
    assert all(Hosts("127.0.0.1:80", (given,), lambda: ()).know(f"{name}:8443") for name in names)


@pytest.mark.parametrize("given", ["*", "", "me@find.example", "find..example", "-a.example", "a.example:x", "ü" * 99])
def test_what_is_no_host_name_is_refused_at_the_start(given: str) -> None:
    """By its text; nobody finds out by an answer 421."""
    with pytest.raises(InvalidRequest, match="is not a host name") as refused:
        Hosts("127.0.0.1:80", ("find.example", given), lambda: ())

    assert refused.value.field == "web_hosts"


def test_a_star_is_one_label_of_a_host_name() -> None:
    """As in certificates."""
    hosts = Hosts("127.0.0.1:80", ("*.find.example",), lambda: ())

    assert [hosts.know(name) for name in ("a.find.example", "a.b.find.example", "find.example")] == [True, False, False]


def test_a_proxy_on_a_unix_socket_may_call_the_server_localhost() -> None:
    """As nginx does by default."""
    hosts = Hosts("unix:/run/s", (), lambda: ())

    assert [hosts.know(name) for name in ("localhost", "evil.example", "unix")] == [True, False, False]


@pytest.mark.parametrize(("given", "prefix"), [("", ""), ("/", ""), ("/photos", "/photos"), ("/a/b-1/", "/a/b-1")])
def test_a_path_prefix_ends_without_a_slash(given: str, prefix: str) -> None:
    """However it is given."""
    assert read_prefix(given) == prefix


@pytest.mark.parametrize("given", ["photos", "//photos", "/a b", "https://find.example/photos", "/photos?x"])
def test_what_is_no_path_prefix_is_refused(given: str) -> None:
    """By its text."""
    with pytest.raises(InvalidRequest, match="is not a path prefix") as refused:
        read_prefix(given)

    assert repr(given) in str(refused.value)
