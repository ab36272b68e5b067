"""Certificates of a real gRPC server that are followed on disk, and those of its clients."""

import logging
import re
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from whatwhere.indexer.errors import CredentialsUnreadable
from whatwhere.service.security.tls import CertificateDates, ServerContext, channel_credentials, server_credentials
from whatwhere.service.security.tls_files import TlsFiles

HOST = "127.0.0.1"
LATER = {"not_before": datetime(2035, 1, 1, tzinfo=UTC), "not_after": datetime(2036, 1, 1, tzinfo=UTC)}
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))  # a connection of its own each time


def chain_of(certificate: trustme.LeafCert) -> bytes:
    return b"".join(pem.bytes() for pem in certificate.cert_chain_pems)


def keep(certificate: trustme.LeafCert, files: TlsFiles) -> None:
    """Write a certificate and its key over those that are there."""
    files.certificate.write_bytes(chain_of(certificate))
    files.key.write_bytes(certificate.private_key_pem.bytes())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give who signs the certificates that are believed."""
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    """Give another whom nobody knows."""
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> Path:
    """Give the file of the authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


@pytest.fixture
def first(authority: trustme.CA) -> trustme.LeafCert:
    """Give the certificate that a server starts with."""
    return authority.issue_cert(HOST)


@pytest.fixture
def files(first: trustme.LeafCert, tmp_path: Path) -> TlsFiles:
    """Give the files of a server, without client certificates."""
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    keep(first, files)
    return files


@pytest.fixture
def mutual(files: TlsFiles, ca: Path) -> TlsFiles:
    """Give the files of a server that asks for client certificates."""
    return TlsFiles(files.certificate, files.key, ca)


@contextmanager
def serving(files: TlsFiles) -> Iterator[int]:
    """Give the port of a server of health."""
    server = grpc.server(ThreadPoolExecutor(2))
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    port = server.add_secure_port(f"{HOST}:0", server_credentials(files))
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def answers(port: int, credentials: grpc.ChannelCredentials) -> bool:
    """Tell whether a new connection gets an answer; False where it is refused."""
    with grpc.secure_channel(f"{HOST}:{port}", credentials, _OPTIONS) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                return False
            raise
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def shown(port: int) -> bytes:
    """Return the certificate that a new connection is shown, in DER."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((HOST, port)))


def der_of(certificate: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())


def own(certificate: trustme.LeafCert, ca: Path, folder: Path) -> grpc.ChannelCredentials:
    """Return the credentials of a client that shows a certificate."""
    files = TlsFiles(folder / "client.pem", folder / "client.key")
    keep(certificate, files)
    return channel_credentials(ca, files.certificate, files.key)


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


# --- who is believed ----------------------------------------------------------------------------------------------


def test_a_client_that_trusts_the_authority_gets_an_answer(files: TlsFiles, ca: Path) -> None:
    """By a real handshake, with the host's address checked."""
    with serving(files) as port:
        assert answers(port, channel_credentials(ca))


def test_a_client_of_another_authority_gets_none(files: TlsFiles, stranger: trustme.CA, tmp_path: Path) -> None:
    """The server is not believed."""
    other = tmp_path / "other.pem"
    stranger.cert_pem.write_to_path(str(other))

    with serving(files) as port:
        assert not answers(port, channel_credentials(other))


def test_a_certificate_of_another_host_is_not_believed(authority: trustme.CA, files: TlsFiles, ca: Path) -> None:
    """Though the authority has signed it."""
    keep(authority.issue_cert("example.org"), files)

    with serving(files) as port:
        assert not answers(port, channel_credentials(ca))


def test_the_chain_of_the_certificate_is_shown(authority: trustme.CA, files: TlsFiles, ca: Path) -> None:
    """A client that knows the root alone believes one that an intermediate has signed."""
    keep(authority.create_child_ca().issue_cert(HOST), files)

    with serving(files) as port:
        assert answers(port, channel_credentials(ca))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_without_an_authority_the_systems_are_trusted(
    files: TlsFiles, ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One file of them, or a folder under the names of OpenSSL; before, they did not know this one."""
    folder = tmp_path / "certs"
    folder.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))

    with serving(files) as port:
        before = answers(port, channel_credentials())
        if kind == "file":
            monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        else:
            (folder / "0a1b2c3d.0").write_bytes(ca.read_bytes())
        after = answers(port, channel_credentials())

    assert (before, after) == (False, True)


def test_a_client_shows_its_certificate(
    mutual: TlsFiles, authority: trustme.CA, stranger: trustme.CA, ca: Path, tmp_path: Path
) -> None:
    """One that the server's authority has signed is let in, without one and with a stranger's nobody is."""
    with serving(mutual) as port:
        signed = answers(port, own(authority.issue_cert("client"), ca, tmp_path))
        without = answers(port, channel_credentials(ca))
        foreign = answers(port, own(stranger.issue_cert("client"), ca, tmp_path))

    assert (signed, without, foreign) == (True, False, False)


def test_who_may_show_a_certificate_is_followed(
    mutual: TlsFiles, authority: trustme.CA, stranger: trustme.CA, ca: Path, tmp_path: Path
) -> None:
    """With another authority in the file, the clients of that one are let in, and those of the first no longer."""
    server_ca = tmp_path / "server-ca.pem"
    authority.cert_pem.write_to_path(str(server_ca))
    clients = [own(issuer.issue_cert("client"), server_ca, tmp_path) for issuer in (authority, stranger)]

    with serving(mutual) as port:
        before = [answers(port, client) for client in clients]
        ca.write_bytes(stranger.cert_pem.bytes())
        after = [answers(port, client) for client in clients]

    assert before == [True, False]
    assert after == [False, True]


# --- the files are followed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [0, 2])
def test_a_new_certificate_is_shown_to_the_next_connection(
    files: TlsFiles, authority: trustme.CA, ca: Path, first: trustme.LeafCert, connections: int
) -> None:
    """Without a restart, whether or not somebody was connected before."""
    second = authority.issue_cert(HOST)

    with serving(files) as port:
        before = [shown(port) for _ in range(connections)]
        keep(second, files)
        after = shown(port)
        answered = answers(port, channel_credentials(ca))

    assert before == [der_of(first)] * connections
    assert after == der_of(second) != der_of(first)
    assert answered


def test_a_connection_outlives_the_certificate_that_it_began_with(
    files: TlsFiles, authority: trustme.CA, ca: Path
) -> None:
    """Who is connected notices nothing."""
    with (
        serving(files) as port,
        grpc.secure_channel(f"{HOST}:{port}", channel_credentials(ca), _OPTIONS) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
        keep(authority.issue_cert(HOST), files)
        shown(port)

        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=30)

    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def of_another(files: TlsFiles, second: trustme.LeafCert) -> None:
    files.certificate.write_bytes(chain_of(second))


def torn_certificate(files: TlsFiles, second: trustme.LeafCert) -> None:
    files.certificate.write_bytes(chain_of(second)[:300])


def torn_key(files: TlsFiles, second: trustme.LeafCert) -> None:
    files.certificate.write_bytes(chain_of(second))
    files.key.write_bytes(second.private_key_pem.bytes()[:100])


def deleted_key(files: TlsFiles, second: trustme.LeafCert) -> None:
    files.certificate.write_bytes(chain_of(second))
    files.key.unlink()


def expired(files: TlsFiles, second: trustme.LeafCert) -> None:
    keep(trustme.CA().issue_cert(HOST, not_after=datetime(2020, 1, 1, tzinfo=UTC)), files)


def of_tomorrow(files: TlsFiles, second: trustme.LeafCert) -> None:
    keep(trustme.CA().issue_cert(HOST, **LATER), files)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (expired, r"server\.pem has expired on 2020-01-01"),
        (of_tomorrow, r"server\.pem is not valid before 2035-01-01"),
        (of_another, r"server\.key: not the key of .*server\.pem"),
        (torn_certificate, r"server\.pem: not a valid PEM certificate"),
        (torn_key, r"server\.key: not a valid PEM private key"),
        (deleted_key, r"server\.key: No such file"),
    ],
)
def test_a_pair_that_cannot_be_used_leaves_the_old_certificate(  # noqa: PLR0917 - what it needs
    damage: Callable[[TlsFiles, trustme.LeafCert], None],
    words: str,
    files: TlsFiles,
    authority: trustme.CA,
    ca: Path,
    first: trustme.LeafCert,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Expired, half renewed, torn or gone: it is logged once, connections go on, the whole pair is taken later."""
    second = authority.issue_cert(HOST)

    with serving(files) as port:
        damage(files, second)
        meanwhile = [shown(port) for _ in range(3)]
        answered = answers(port, channel_credentials(ca))
        logged = errors_of(caplog)
        keep(second, files)
        after = shown(port)

    assert meanwhile == [der_of(first)] * 3
    assert answered
    assert len(logged) == 1
    assert re.search(f"^still using the previous certificate: .*{words}", logged[0])
    assert after == der_of(second)
    assert errors_of(caplog) == logged


def test_the_same_trouble_is_logged_again_after_it_was_over(
    files: TlsFiles, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each time."""
    with serving(files) as port:
        for _ in range(2):
            second = authority.issue_cert(HOST)
            of_another(files, second)
            shown(port)
            keep(second, files)
            shown(port)

    assert len(errors_of(caplog)) == 2


def test_what_nobody_foresaw_leaves_the_old_certificate_too(
    files: TlsFiles, first: trustme.LeafCert, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a traceback, for it is an error of ours."""

    def broken(_: TlsFiles) -> None:
        raise ZeroDivisionError("unforeseen")

    with serving(files) as port:
        monkeypatch.setattr("whatwhere.service.security.tls._version", broken)
        seen = [shown(port) for _ in range(2)]

    assert seen == [der_of(first)] * 2
    assert errors_of(caplog) == ["still using the previous certificate: unforeseen"]
    assert "Traceback" in caplog.text


# --- at the start -------------------------------------------------------------------------------------------------


def absent(files: TlsFiles, path: Path) -> None:
    path.unlink()


def empty(files: TlsFiles, path: Path) -> None:
    path.write_bytes(b"")


def no_pem(files: TlsFiles, path: Path) -> None:
    path.write_bytes(b"\x30\x82 this is no PEM")


def torn(files: TlsFiles, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def folder(files: TlsFiles, path: Path) -> None:
    path.unlink()
    path.mkdir()


def of_another_key(files: TlsFiles, path: Path) -> None:
    path.write_bytes(trustme.CA().issue_cert(HOST).private_key_pem.bytes())


def of_another_kind(files: TlsFiles, path: Path) -> None:
    path.write_bytes(trustme.CA().issue_cert(HOST, key_type=trustme.KeyType.RSA).private_key_pem.bytes())


def encrypted(files: TlsFiles, path: Path) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    scheme = serialization.BestAvailableEncryption(b"passphrase")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, scheme))


def a_certificate(files: TlsFiles, path: Path) -> None:
    path.write_bytes(files.certificate.read_bytes())


def a_key(files: TlsFiles, path: Path) -> None:
    path.write_bytes(files.key.read_bytes())


def torn_in_the_chain(files: TlsFiles, path: Path) -> None:
    path.write_bytes(path.read_bytes() + path.read_bytes()[:300])


NO_CERTIFICATE = (empty, no_pem, torn, a_key, torn_in_the_chain)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        *((name, absent, "No such file or directory: give a PEM") for name in ("certificate", "key", "client_ca")),
        *(
            (name, folder, "is a directory, not a regular file: give a PEM")
            for name in ("certificate", "key", "client_ca")
        ),
        *(
            (name, damage, "not a valid PEM certificate")
            for name in ("certificate", "client_ca")
            for damage in NO_CERTIFICATE
        ),
        *(("key", damage, "not a valid PEM private key") for damage in (empty, no_pem, torn, a_certificate)),
        *(("key", damage, "not the key of") for damage in (of_another_key, of_another_kind)),
        ("key", encrypted, "encrypted: give the key without a passphrase"),
    ],
)
def test_what_cannot_be_used_at_the_start_is_an_error(
    mutual: TlsFiles, name: str, damage: Callable[[TlsFiles, Path], None], words: str
) -> None:
    """It names the file and what to do, and shows nothing of it."""
    path: Path = getattr(mutual, name)
    secret = mutual.key.read_text().splitlines()[1]
    damage(mutual, path)

    with pytest.raises(CredentialsUnreadable) as caught:
        server_credentials(mutual)

    assert str(caught.value).startswith(f"{path}: {words}")
    assert secret not in str(caught.value)


def test_an_expired_certificate_is_warned_of(
    files: TlsFiles, authority: trustme.CA, ca: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server starts all the same, and no client believes it."""
    keep(authority.issue_cert(HOST, not_after=datetime(2020, 1, 1, tzinfo=UTC)), files)

    with serving(files) as port:
        answered = answers(port, channel_credentials(ca))

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    said = f"{files.certificate} has expired on 2020-01-01 00:00 UTC: clients will refuse it: renew it"
    assert caplog.messages == [said]
    assert not answered


def test_a_certificate_that_is_not_good_yet_is_warned_of(
    files: TlsFiles, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    """By the day on which it will be; a wrong clock looks the same."""
    keep(authority.issue_cert(HOST, **LATER), files)

    server_credentials(files)

    said = (
        "is not valid before 2035-01-01 00:00 UTC: clients will refuse it until then: also check this machine's clock"
    )
    assert caplog.messages == [f"{files.certificate} {said}"]


def test_an_expired_intermediate_is_warned_of(
    files: TlsFiles, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    """By its place in the chain: the server's own certificate is good, and clients refuse it all the same."""
    other = authority.issue_cert("other", common_name="old", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    files.certificate.write_bytes(files.certificate.read_bytes() + chain_of(other))

    server_credentials(files)

    assert len(caplog.messages) == 1
    assert re.search(r"certificate 2 of the chain, .*CN=old.*, has expired on 2020-01-01", caplog.messages[0])


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2)])
def test_a_chain_in_the_wrong_order_is_called_that(
    files: TlsFiles, authority: trustme.CA, order: tuple[int, ...]
) -> None:
    """And not another's key; what comes behind the server's own may be in any order, as clients take it."""
    certificate = authority.create_child_ca().create_child_ca().issue_cert(HOST)
    keep(certificate, files)
    pems = [pem.bytes() for pem in certificate.cert_chain_pems]
    files.certificate.write_bytes(b"".join(pems[n] for n in order))
    position = order.index(0) + 1

    with pytest.raises(CredentialsUnreadable, match=f"wrong order: its certificate {position} belongs to .*server.key"):
        server_credentials(files)
    files.certificate.write_bytes(b"".join(pems[n] for n in (0, 2, 1)))
    server_credentials(files)


def key_of(kind: str) -> Any:
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1(), "secp256k1": ec.SECP256K1()}
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind))


def keep_key(files: TlsFiles, kind: str, form: serialization.PrivateFormat) -> None:
    """Write a key of this kind, and a certificate that it signed itself."""
    key = key_of(kind)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .sign(key, None if kind == "Ed25519" else hashes.SHA256())
    )
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("kind", ["P-256", "P-384", "2048"])
def test_keys_of_every_usual_kind_and_form_are_used(
    files: TlsFiles, kind: str, form: serialization.PrivateFormat
) -> None:
    """Also behind the mark that some editors write at the beginning, and with the lines of Windows."""
    keep_key(files, kind, form)
    for path in (files.certificate, files.key):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))

    with serving(files) as port:
        assert answers(port, channel_credentials(files.certificate))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("P-521", "gRPC cannot use a key of the kind EC secp521r1: give an RSA key of 2048 bits"),
        ("secp256k1", "gRPC cannot use a key of the kind EC secp256k1"),
        ("Ed25519", "gRPC cannot use a key of the kind Ed25519"),
        ("1024", "too short to be safe: give an RSA key of 2048 bits"),
    ],
)
def test_a_key_that_grpc_cannot_use_is_named_at_the_start(files: TlsFiles, kind: str, words: str) -> None:
    """Else the server would start, and no client would get an answer."""
    keep_key(files, kind, serialization.PrivateFormat.PKCS8)

    for make in (server_credentials, ServerContext):
        with pytest.raises(CredentialsUnreadable, match=re.escape(f"{files.key}: {words}")):
            make(files)
    with pytest.raises(CredentialsUnreadable, match=re.escape(words)):
        channel_credentials(None, files.certificate, files.key)


def test_a_trusted_certificate_of_openssl_is_called_that(files: TlsFiles) -> None:
    """OpenSSL reads it, gRPC does not."""
    files.certificate.write_bytes(files.certificate.read_bytes().replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"))

    with pytest.raises(CredentialsUnreadable, match="gRPC cannot read: convert it with `openssl x509 -in"):
        server_credentials(files)


def by_rename(certificate: trustme.LeafCert, files: TlsFiles) -> None:
    for path, content in ((files.certificate, chain_of(certificate)), (files.key, certificate.private_key_pem.bytes())):
        beside = path.with_suffix(".new")
        beside.write_bytes(content)
        beside.replace(path)


def by_symlink(certificate: trustme.LeafCert, files: TlsFiles) -> None:
    """Turn the link `..data` to a new folder, as Kubernetes does."""
    folder = files.certificate.parent
    version = folder / f"..{len(list(folder.iterdir()))}"
    version.mkdir()
    (version / files.certificate.name).write_bytes(chain_of(certificate))
    (version / files.key.name).write_bytes(certificate.private_key_pem.bytes())
    (folder / "..tmp").symlink_to(version.name)
    (folder / "..tmp").replace(folder / "..data")
    for path in (files.certificate, files.key):
        if not path.is_symlink():
            path.unlink(missing_ok=True)
            path.symlink_to(f"..data/{path.name}")


@pytest.mark.parametrize("renew", [keep, by_rename, by_symlink])
def test_dates_are_those_of_the_certificate_that_is_shown(
    tmp_path: Path, authority: trustme.CA, renew: Callable[[trustme.LeafCert, TlsFiles], None]
) -> None:
    """In whatever way it is renewed; while the new one is bad, those of the old one."""
    folder = tmp_path / "secret"
    folder.mkdir()
    files = TlsFiles(folder / "server.pem", folder / "server.key")
    days = [datetime(year, 1, 1, tzinfo=UTC) for year in (2035, 2036)]
    first, second = (authority.issue_cert(HOST, not_after=day) for day in days)
    renew(first, files)
    dates = CertificateDates(files)

    with serving(files) as port:
        found = [dates.current.ends]  # type: ignore[union-attr] # this library can read it
        renew(second, files)
        found.append(dates.current.ends)  # type: ignore[union-attr]
        assert shown(port) == der_of(second)
        files.key.write_bytes(b"torn")
        found.append(dates.current.ends)  # type: ignore[union-attr]
        assert shown(port) == der_of(second)

    assert found == [days[0], days[1], days[1]]


@pytest.mark.parametrize("key_type", list(trustme.KeyType))
def test_a_certificate_that_is_good_is_not_warned_of(
    files: TlsFiles, authority: trustme.CA, caplog: pytest.LogCaptureFixture, key_type: trustme.KeyType
) -> None:
    """Of either kind of key, signed by an intermediate or by the root."""
    for issuer in (authority, authority.create_child_ca()):
        keep(issuer.issue_cert(HOST, key_type=key_type), files)
        server_credentials(files)

    assert caplog.messages == []


# --- a client's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["certificate", "key"])
def test_a_clients_certificate_and_key_go_together(files: TlsFiles, ca: Path, given: str) -> None:
    """The error names the one that was given."""
    path: Path = getattr(files, given)

    with pytest.raises(CredentialsUnreadable, match=re.escape(f"{path}: ") + ".*go together: give both"):
        channel_credentials(ca, **{given: path})


@pytest.mark.parametrize("damage", [absent, empty, no_pem, torn, a_key])
def test_an_authority_that_is_none_is_refused(
    files: TlsFiles, ca: Path, damage: Callable[[TlsFiles, Path], None]
) -> None:
    """Before anything is connected."""
    damage(files, ca)

    with pytest.raises(CredentialsUnreadable, match=re.escape(str(ca))):
        channel_credentials(ca)


@pytest.mark.parametrize("damage", [absent, torn, of_another_key, encrypted])
def test_a_clients_key_that_does_not_fit_is_refused(
    files: TlsFiles, ca: Path, damage: Callable[[TlsFiles, Path], None]
) -> None:
    """The library itself would say so only in a log, and then connect without a certificate."""
    damage(files, files.key)

    with pytest.raises(CredentialsUnreadable, match=re.escape(f"{files.key}: ")):
        channel_credentials(ca, files.certificate, files.key)


# --- names --------------------------------------------------------------------------------------------------------


def for_clients_alone(files: TlsFiles) -> None:
    """Write a certificate that may be shown by clients, and not by servers."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def test_a_certificate_is_for_its_names_and_addresses(files: TlsFiles, authority: trustme.CA) -> None:
    """In their order; mail addresses are none, and the common name does not count."""
    keep(
        authority.issue_cert("b.example", "*.a.example", HOST, "2001:db8::1", "me@example.org", common_name="c"), files
    )

    assert ServerContext(files).names == ("b.example", "*.a.example", HOST, "2001:db8::1")


@pytest.mark.parametrize(
    "validity",
    [
        {"not_after": datetime(2020, 1, 1, tzinfo=UTC)},
        {"not_before": datetime(2035, 1, 1, tzinfo=UTC), "not_after": datetime(2036, 1, 1, tzinfo=UTC)},
    ],
    ids=["expired", "not good yet"],
)
def test_a_certificate_that_no_client_takes_today_is_for_no_name(
    files: TlsFiles, authority: trustme.CA, validity: dict[str, datetime]
) -> None:
    """Clients would refuse it."""
    keep(authority.issue_cert("a.example", **validity), files)

    assert ServerContext(files).names == ()


def test_a_certificate_for_clients_is_for_no_name(files: TlsFiles) -> None:
    """It has names, and may not be used by a server."""
    for_clients_alone(files)

    assert ServerContext(files).names == ()
