"""Addresses that people give a server to listen on: which are taken, and what the error proposes for the others."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from whatwhere.indexer.errors import InvalidRequest
from whatwhere.service import addresses
from whatwhere.service.server import Server
from whatwhere.service.settings import ServerSettings

FIELDS = ("listen", "web_listen", "health_listen", "metrics_listen")


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        (":0", "give 127.0.0.1:0 for this machine alone, 0.0.0.0:0 or [::]:0 for all"),
        ("50051", "give 127.0.0.1:50051 for this machine alone"),
        ("::1:8080", "IPv6 addresses need brackets: [::1]:8080"),
        ("::1", "add a port, and brackets around IPv6: [::1]:50051"),
        ("[::1]", "add a port, and brackets around IPv6: [::1]:50051"),
        ("localhost", "add a port: localhost:50051"),
        ("http://127.0.0.1:8080/x", "give it without the scheme: 127.0.0.1:8080"),
        ("127.0.0.1:99999", "such as 127.0.0.1:50051"),
        ("127.0.0.1:٣", "such as 127.0.0.1:50051"),
        ("me@localhost:1", "such as 127.0.0.1:50051"),
        ("[find.example]:1", "such as 127.0.0.1:50051"),
        ("", "such as 127.0.0.1:50051"),
        ("unix:run/s", "give an absolute path of at most 103 bytes"),
        (f"unix:/{'x' * 103}", "give an absolute path of at most 103 bytes"),
    ],
)
def test_an_address_that_is_none_is_refused_with_one_that_is(address: str, remedy: str) -> None:
    """By its text and the setting that it stands in."""
    with pytest.raises(InvalidRequest) as refused:
        addresses.check_listen(address, "web_listen")

    assert repr(address) in str(refused.value)
    assert remedy in str(refused.value)
    assert refused.value.field == "web_listen"


@pytest.mark.parametrize("field", FIELDS)
def test_every_address_of_a_server_is_checked_before_any_is_bound(field: str, tmp_path: Path) -> None:
    """A port alone may be anybody's."""
    settings = ServerSettings(tmp_path, **{"listen": "127.0.0.1:0", field: "50051"})  # type: ignore[arg-type] # by name

    with pytest.raises(InvalidRequest, match=r"127\.0\.0\.1:50051") as refused:
        Server(settings)

    assert refused.value.field == field


@pytest.fixture
def taken() -> Iterator[str]:
    """Give an address on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("field", FIELDS)
def test_why_an_address_cannot_be_had_is_said(field: str, taken: str, tmp_path: Path) -> None:
    """Taken, of another machine, or a name without an address: three troubles with three remedies."""
    words = {taken: "in use by another process", "203.0.113.9:0": "not an address of this machine"}
    words["no-such-name.invalid:0"] = "the name has no address"
    for address, said in words.items():
        settings = ServerSettings(
            tmp_path,
            allow_insecure=True,
            **{"listen": "127.0.0.1:0", field: address},  # type: ignore[arg-type] # by name
        )
        with pytest.raises(InvalidRequest, match=said) as refused:
            Server(settings)
        assert refused.value.field == field


def test_a_unix_socket_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    """Neither that of a living one nor a file, which is nobody's socket."""
    path = tmp_path / "s"
    with addresses.bind(f"unix:{path}", 1):
        with pytest.raises(InvalidRequest, match="in use by another process"):
            addresses.check_free(f"unix:{path}", "listen")
        with pytest.raises(OSError, match="in use"):
            addresses.bind(f"unix:{path}", 1)

    addresses.check_free(f"unix:{path}", "listen")
    with addresses.bind(f"unix:{path}", 1), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    path.unlink()
    path.write_text("a file")
    with pytest.raises(OSError, match="in use"):
        addresses.bind(f"unix:{path}", 1)
    assert path.read_text() == "a file"


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/s", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("find.example:1", False),
    ],
)
def test_what_only_this_machine_reaches_needs_no_tls(address: str, local: bool) -> None:
    """A name may be any machine's."""
    assert addresses.is_local(address) is local
