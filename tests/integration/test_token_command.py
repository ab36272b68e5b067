"""`whatwhere token` as people run it, and servers that ask who calls: by tokens, by certificates, by both."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests import commands
from whatwhere.indexer import errors
from whatwhere.service.client.client import Client
from whatwhere.service.security.tls import channel_credentials
from whatwhere.service.security.tls_files import TlsFiles
from whatwhere.service.security.tokens import Scope, create_token, read_tokens, revoke_token
from whatwhere.service.server import Server, _check_exposure, create_server
from whatwhere.service.settings import ServerSettings

TLS = TlsFiles(Path("server.pem"), Path("server.key"))
MUTUAL = TlsFiles(Path("server.pem"), Path("server.key"), Path("ca.pem"))
TOKENS = Path("tokens.json")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return commands.run("token", *arguments, environment=os.environ | {"COLUMNS": "200"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a file of tokens that is not there yet."""
    return tmp_path / "tokens.json"


# --- the command --------------------------------------------------------------------------------------------------


def test_the_secret_is_all_that_is_printed(path: Path) -> None:
    """On standard output for a file, the words for people beside it; the file holds the hash of what was printed."""
    done = commands.run_afresh("token", "create", "web", "--file", path, environment=os.environ | {"COLUMNS": "200"})

    [token] = read_tokens(path)
    secret = done.stdout.removesuffix("\n")
    assert done.returncode == 0
    assert secret.startswith("ww_")
    assert secret.split() == [secret]
    assert token.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert (token.name, token.scopes, token.expires_at) == ("web", {Scope.SEARCH}, None)
    assert f"{path}: token web is created" in done.stderr
    assert secret not in done.stderr


def test_scopes_and_the_last_day_are_what_was_said(path: Path) -> None:
    """Both scopes; the day is over before it begins, in UTC."""
    run("create", "operator", "--file", path, "--scope", "admin", "--scope", "search", "--expires", "2999-01-31")

    [token] = read_tokens(path)

    assert token.scopes == {Scope.ADMIN, Scope.SEARCH}
    assert token.expires_at is not None
    assert token.expires_at.isoformat() == "2999-01-31T00:00:00+00:00"


def test_the_list_shows_everything_but_the_hash(path: Path) -> None:
    """For people and for programs; neither shows the secret."""
    secrets = [run("create", "web", "--file", path, "--expires", "2999-01-31").stdout.strip()]
    secrets += [run("create", "operator", "--file", path, "--scope", "admin").stdout.strip()]
    hashes = [token.sha256 for token in read_tokens(path)]
    created = read_tokens(path)[0].created_at

    table, listed = run("list", "--file", path), run("list", "--file", path, "--json")

    lines = [line.split() for line in table.stdout.splitlines()]
    assert lines[0] == ["name", "scopes", "created", "expires"]
    assert lines[1] == ["web", "search", *f"{created:%Y-%m-%d %H:%M} UTC 2999-01-31 00:00 UTC".split()]
    assert (lines[2][:2], lines[2][-1]) == (["operator", "admin"], "never")
    web, operator = json.loads(listed.stdout)
    assert web == {
        "name": "web",
        "scopes": ["search"],
        "created_at": created.isoformat(),
        "expires_at": "2999-01-31T00:00:00+00:00",
    }
    assert (operator["scopes"], operator["expires_at"]) == (["admin"], None)
    assert not [text for text in secrets + hashes if text in table.stdout + listed.stdout]


def test_a_revoked_token_is_no_longer_listed(path: Path) -> None:
    """The words name the file and the token."""
    for name in ("web", "desk"):
        create_token(path, name, [Scope.SEARCH])

    done = run("revoke", "web", "--file", path)

    assert done.returncode == 0
    assert done.stdout == f"{path}: token web is revoked\n"
    assert [token["name"] for token in json.loads(run("list", "--file", path, "--json").stdout)] == ["desk"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "web"), 1, "token web exists already"),
        (("create", "two words"), 1, "'two words' is not a valid name"),
        (("create", "desk", "--expires", "2020-01-31"), 1, "give a time in the future"),
        (("create", "desk", "--expires", "31.1.2999"), 2, "--expires"),
        (("create", "desk", "--scope", "write"), 2, "--scope"),
        (("revoke", "desk"), 1, "the file has web"),
        (("list", "--file", "no-such-file.json"), 1, "no-such-file.json: no such file"),
        (("create", "desk", "--file", "/no/such/folder/tokens.json"), 1, "/no/such/folder"),
    ],
)
def test_an_error_is_a_sentence_not_a_traceback(path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    """Nothing on standard output, where a secret would be taken from, and nothing is changed."""
    create_token(path, "web", [Scope.SEARCH])
    before = path.read_bytes()

    done = run(*arguments) if "--file" in arguments else run(*arguments, "--file", path)

    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert path.read_bytes() == before


# --- a server that asks for tokens --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guarded:
    """A server with TLS and tokens, what its clients need, and the secrets by the names of the tokens."""

    address: str
    credentials: grpc.ChannelCredentials
    file: Path
    secrets: dict[str, str]

    def client(self, token: str | None) -> Client:
        return Client(self.address, token=token, credentials=self.credentials)


def started(settings: ServerSettings) -> tuple[Server, str]:
    serving, port = create_server(settings)
    serving.start()
    return serving, f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give who signs the certificates that are believed."""
    return trustme.CA()


@pytest.fixture(scope="module")
def folder(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the certificates of the authority, a server and a client."""
    folder = tmp_path_factory.mktemp("certificates")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, certificate in (
        ("server", authority.issue_cert("127.0.0.1")),
        ("client", authority.issue_cert("client")),
    ):
        (folder / f"{name}.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
        (folder / f"{name}.key").write_bytes(certificate.private_key_pem.bytes())
    return folder


@pytest.fixture(scope="module")
def guarded(collection: Path, folder: Path) -> Iterator[Guarded]:
    """Give a server that answers only who has a token."""
    file = folder / "tokens.json"
    scopes = {"web": [Scope.SEARCH], "operator": [Scope.ADMIN]}
    secrets = {name: create_token(file, name, granted) for name, granted in scopes.items()}
    tls = TlsFiles(folder / "server.pem", folder / "server.key")
    serving, address = started(ServerSettings(collection, listen="127.0.0.1:0", tls=tls, tokens=file))
    yield Guarded(address, channel_credentials(folder / "ca.pem"), file, secrets)
    serving.stop(None)


@pytest.mark.parametrize("token", [None, "wrong", "ww_" + "A" * 43])
def test_who_has_no_token_of_the_server_is_refused(guarded: Guarded, token: str | None) -> None:
    """Searches and administration alike, without a word about which tokens there are."""
    refusals = []
    with guarded.client(token) as client:
        for call in (lambda: client.search("images/1"), client.collection, client.refresh):
            with pytest.raises(errors.Unauthenticated) as caught:
                call()
            refusals.append(str(caught.value))

    words = "a token is required" if token is None else "unknown, revoked or expired"
    assert len(refusals) == 3
    assert all(words in refusal and "web" not in refusal for refusal in refusals)


def test_a_token_for_searches_may_search_and_no_more(guarded: Guarded) -> None:
    """The refusal names the scope that the token has not."""
    with guarded.client(guarded.secrets["web"]) as client:
        hits = client.search("images/1").hits
        with pytest.raises(errors.ScopeMissing, match="the token web lacks the scope admin"):
            client.refresh()

    assert hits[0].image.name == "images/1"


def test_a_token_for_administration_may_refresh_and_no_more(guarded: Guarded) -> None:
    """It does not include searches."""
    with guarded.client(guarded.secrets["operator"]) as client:
        refreshed = client.refresh()
        with pytest.raises(errors.ScopeMissing, match="the token operator lacks the scope search"):
            client.search("images/1")

    assert refreshed.image_count == 8


def test_health_asks_for_no_token(guarded: Guarded) -> None:
    """Probes have none; a wrong one does no harm."""
    for token in (None, "wrong"):
        with guarded.client(token) as client:
            assert client.health()
            assert client.health("whatwhere.v1.ImageSearchService")


@pytest.mark.parametrize("name", ["web", "operator"])
def test_reflection_asks_for_a_token(guarded: Guarded, name: str) -> None:
    """One of any scope will do."""
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    metadata = (("authorization", f"Bearer {guarded.secrets[name]}"),)

    with grpc.secure_channel(guarded.address, guarded.credentials) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ServerReflectionInfo(iter(asked), timeout=30))
        [answer] = stub.ServerReflectionInfo(iter(asked), timeout=30, metadata=metadata)

    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "whatwhere.v1.ImageSearchService" in [one.name for one in answer.list_services_response.service]


def test_what_is_created_and_revoked_counts_a_second_later(guarded: Guarded) -> None:
    """Without a restart, on a connection that goes on; the tokens that are left go on too."""
    secret = create_token(guarded.file, "guest", [Scope.SEARCH])
    time.sleep(1.1)

    with guarded.client(secret) as client, guarded.client(guarded.secrets["web"]) as other:
        before = client.collection().image_count
        revoke_token(guarded.file, "guest")
        time.sleep(1.1)
        with pytest.raises(errors.Unauthenticated, match="revoked"):
            client.collection()
        left = other.collection().image_count

    assert (before, left) == (8, 8)


def test_a_certificate_alone_lets_in_where_no_tokens_are_asked_for(collection: Path, folder: Path) -> None:
    """Who shows one may search and refresh; who shows none is not even heard."""
    tls = TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    shown = channel_credentials(folder / "ca.pem", folder / "client.pem", folder / "client.key")
    serving, address = started(ServerSettings(collection, listen="127.0.0.1:0", tls=tls))

    try:
        with Client(address, credentials=shown) as client:
            hits = client.search("images/1").hits
            refreshed = client.refresh()
        with (
            Client(address, credentials=channel_credentials(folder / "ca.pem"), timeout_s=10) as client,
            pytest.raises(errors.ServerUnreachable),
        ):
            client.health()
    finally:
        serving.stop(None)

    assert hits[0].image.name == "images/1"
    assert refreshed.image_count == 8


@pytest.mark.parametrize("missing", ["tokens.json", "server.key"])
def test_a_server_does_not_start_without_its_files(collection: Path, folder: Path, missing: str, path: Path) -> None:
    """The error names the one that is not there."""
    absent = path.with_name(missing)
    tls = TlsFiles(folder / "server.pem", absent if missing == "server.key" else folder / "server.key")
    settings = ServerSettings(
        collection, listen="127.0.0.1:0", tls=tls, tokens=absent if missing == "tokens.json" else None
    )

    with pytest.raises(errors.CredentialsUnreadable, match=str(absent)):
        create_server(settings)


# --- an address that others reach ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051", "example.org:50051", "localhost.org:1"])
@pytest.mark.parametrize(
    ("tls", "tokens", "words"),
    [
        (None, None, ("TLS", "--tls-certificate", "--tls-key", "tokens or client certificates", "--tokens")),
        (None, TOKENS, ("TLS", "--tls-certificate", "--tls-key")),
        (TLS, None, ("tokens or client certificates", "--tokens", "--tls-client-ca")),
    ],
)
def test_an_address_that_others_reach_needs_tls_and_who_asks(
    collection: Path, address: str, tls: TlsFiles | None, tokens: Path | None, words: tuple[str, ...]
) -> None:
    """Refused before anything is opened, by what is missing and what to do."""
    with pytest.raises(errors.InvalidRequest) as caught:
        create_server(ServerSettings(collection, listen=address, tls=tls, tokens=tokens))

    assert caught.value.field == "listen"
    assert str(caught.value).startswith(f"{address} can be reached from other machines")
    assert all(word in str(caught.value) for word in (*words, "--allow-insecure"))


@pytest.mark.parametrize(
    ("address", "tls", "tokens", "allow_insecure"),
    [
        ("0.0.0.0:0", TLS, TOKENS, False),
        ("0.0.0.0:0", MUTUAL, None, False),
        ("0.0.0.0:0", MUTUAL, TOKENS, False),
        ("0.0.0.0:0", None, None, True),
        ("0.0.0.0:0", None, TOKENS, True),
        ("0.0.0.0:0", TLS, None, True),
        ("127.0.0.1:0", None, None, False),
        ("127.0.0.1:0", None, TOKENS, False),
        ("127.0.0.1:0", TLS, None, False),
        ("127.9.9.9:0", None, None, False),
        ("[::1]:0", None, None, False),
        ("localhost:0", None, None, False),
    ],
)
def test_what_is_guarded_or_near_or_allowed_may_be(
    address: str, tls: TlsFiles | None, tokens: Path | None, allow_insecure: bool
) -> None:
    """TLS with tokens or client certificates, this machine alone, or a person who said so."""
    settings = ServerSettings(Path("c.ww"), listen=address, tls=tls, tokens=tokens, allow_insecure=allow_insecure)

    _check_exposure(settings)
