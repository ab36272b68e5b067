"""Addresses as people give them, and what gRPC is told."""

import logging

import pytest

from whatwhere.indexer import errors
from whatwhere.service.client.targets import Target, to_target


@pytest.mark.parametrize(
    ("given", "uri", "servers"),
    [
        ("10.0.0.5:50051", "10.0.0.5:50051", ["10.0.0.5:50051"]),
        ("search.example.org:50051", "search.example.org:50051", ["search.example.org:50051"]),
        ("[2001:db8::5]:50051", "[2001:db8::5]:50051", ["[2001:db8::5]:50051"]),
        (["10.0.0.5:50051"], "10.0.0.5:50051", ["10.0.0.5:50051"]),
        ("unix:/run/whatwhere", "unix:/run/whatwhere", ["unix:/run/whatwhere"]),
        ("10.0.0.5:1, 10.0.0.5:1", "10.0.0.5:1", ["10.0.0.5:1"]),
    ],
)
def test_one_server_is_what_grpc_is_told(given: str | list[str], uri: str, servers: list[str]) -> None:
    """Names are left to gRPC, which looks them up again; one that is given twice is one."""
    assert to_target(given) == Target(uri, tuple(servers))


@pytest.mark.parametrize(
    ("given", "uri", "servers"),
    [
        (["10.0.0.5:1", "10.0.0.6:2"], "ipv4:10.0.0.5:1,10.0.0.6:2", ["10.0.0.5:1", "10.0.0.6:2"]),
        ("10.0.0.5:1, 10.0.0.6:2", "ipv4:10.0.0.5:1,10.0.0.6:2", ["10.0.0.5:1", "10.0.0.6:2"]),
        ("ipv4:10.0.0.5:1,10.0.0.6:2", "ipv4:10.0.0.5:1,10.0.0.6:2", ["10.0.0.5:1", "10.0.0.6:2"]),
        ("[2001:db8::5]:1,[::1]:2", "ipv6:[2001:db8::5]:1,[::1]:2", ["[2001:db8::5]:1", "[::1]:2"]),
        ("[2001:db8::5]:1,10.0.0.6:2", "ipv6:[2001:db8::5]:1,[::ffff:10.0.0.6]:2", ["[2001:db8::5]:1", "10.0.0.6:2"]),
        (["10.0.0.5:1", "10.0.0.6:2,10.0.0.5:1"], "ipv4:10.0.0.5:1,10.0.0.6:2", ["10.0.0.5:1", "10.0.0.6:2"]),
    ],
)
def test_several_servers_are_one_target(given: str | list[str], uri: str, servers: list[str]) -> None:
    """A list, or parted by commas; among IPv6 addresses the others are mapped, for gRPC's lists are of one version."""
    assert to_target(given) == Target(uri, tuple(servers), several=True)


def test_a_name_in_a_list_is_looked_up() -> None:
    """It goes by its name all the same."""
    target = to_target("localhost:1,127.0.0.9:2")

    assert target.servers == ("localhost:1", "127.0.0.9:2")
    assert "127.0.0.1" in target.uri
    assert "localhost" not in target.uri


@pytest.mark.parametrize("uri", ["dns:///localhost:7", "dns:localhost:7"])
def test_a_dns_name_is_left_to_grpc_and_stands_for_several(uri: str) -> None:
    """Its servers are those of now."""
    target = to_target(uri)

    assert target == Target(uri, (uri,), several=True)
    assert target.host == "localhost"
    assert "127.0.0.1:7" in target.look_up()
    assert set(target.look_up()) <= {"127.0.0.1:7", "[::1]:7"}


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("", "''"),
        ([], "''"),
        ("search.example.org", "'search.example.org'"),
        ("10.0.0.5:1,,10.0.0.6:1", "''"),
        ("10.0.0.5:1,10.0.0.6", "'10.0.0.6'"),
        ("10.0.0.5:1,10.0.0.600:1", "'10.0.0.600:1'"),
        ("10.0.0.5:1,10.0.0.6:0", "'10.0.0.6:0'"),
        ("10.0.0.5:99999", "'10.0.0.5:99999'"),
        ("2001:db8::5:1", "'2001:db8::5:1'"),
        ("[2001:db8::5]:1,[2001:db8::g]:1", "'[2001:db8::g]:1'"),
        ("[10.0.0.5]:1", "'[10.0.0.5]:1'"),
        ("10.0.0.5:1,unix:/run/whatwhere", "'unix:/run/whatwhere'"),
        ("http://10.0.0.5:1", "'http://10.0.0.5:1'"),
        ("ipv4:10.0.0.5:1,10.0.0.6", "'10.0.0.6'"),
        ("dns:///search.example.org", "'search.example.org'"),
        ("dns:///a.example.org:1,b.example.org:1", "'a.example.org:1,b.example.org:1'"),
    ],
)
def test_what_is_no_address_is_named(given: str | list[str], wrong: str) -> None:
    """The one that is wrong, of several, and how it is written well."""
    with pytest.raises(errors.InvalidRequest, match="give HOST:PORT, such as") as caught:
        to_target(given)

    assert str(caught.value).startswith(f"{wrong} is not")
    assert caught.value.field == "address"


def test_a_name_that_nobody_knows_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is named in the log; where none is known, in the error."""
    caplog.set_level(logging.WARNING)

    target = to_target("nobody.invalid:1,127.0.0.1:2")
    with pytest.raises(errors.ServerUnreachable, match=r"nobody\.invalid:1.*nothing\.invalid:2"):
        to_target("nobody.invalid:1,nothing.invalid:2")
    with pytest.raises(errors.ServerUnreachable, match=r"nobody\.invalid:1"):
        to_target("dns:///nobody.invalid:1").look_up()

    assert target.uri == "ipv4:127.0.0.1:2"
    assert "nobody.invalid:1" in caplog.text


@pytest.mark.parametrize(
    ("given", "loopback"),
    [
        ("127.0.0.1:1,[::1]:2,localhost:3", True),
        ("dns:///localhost:1", True),
        ("127.0.0.1:1,10.0.0.1:1", False),
        ("dns://10.0.0.1/localhost:1", False),
        ("127.0.0.1.example.org:1", False),
    ],
)
def test_only_what_all_stays_here_is_loopback(given: str, loopback: bool) -> None:
    """One server elsewhere is enough."""
    assert to_target(given).loopback is loopback
