"""The web side over TLS: certificates that are followed, names, and those of clients."""

import socket
import ssl
from pathlib import Path

import httpx
import pytest
import trustme

from tests.browsing import (
    PATIENCE_S,
    browsing,
    connected,
    plain,
    port_of,
    rest,
    running,
)
from whatwhere.service.security.tls_files import TlsFiles
from whatwhere.service.server import Server

pytestmark = pytest.mark.usefixtures("one_thread")


# --- TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give who signs the certificates that are believed."""
    return trustme.CA()


def keep(authority: trustme.CA, folder: Path, *names: str, client_ca: bool = False) -> TlsFiles:
    """Write a certificate for these names over the one that is there."""
    certificate = authority.issue_cert(*names)
    kept = TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem" if client_ca else None)
    kept.certificate.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    kept.key.write_bytes(certificate.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return kept


def trusting(authority: trustme.CA, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def ask(server: Server, context: ssl.SSLContext, name: str = "127.0.0.1") -> httpx.Response:
    address = f"https://127.0.0.1:{port_of(server)}/v1/collection"
    with httpx.Client(verify=context, timeout=PATIENCE_S) as client:
        return client.get(address, headers={"host": name})


def shown_names(server: Server, context: ssl.SSLContext) -> set[str]:
    """Return the names of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port_of(server)), PATIENCE_S) as bare,
        context.wrap_socket(bare, server_hostname="127.0.0.1") as connection,
    ):
        return {name for _, name in connection.getpeercert()["subjectAltName"]}  # type: ignore[index, misc, str-unpack]


def test_https_has_the_names_of_its_certificate(collection: Path, authority: trustme.CA, tmp_path: Path) -> None:
    """And those of this machine, on which it listens; nothing is answered without TLS."""
    kept = keep(authority, tmp_path, "127.0.0.1", "find.example", "*.many.example")
    with running(plain(collection, tls=kept)) as server:
        context = trusting(authority)
        names = ("127.0.0.1", "find.example", "a.many.example:443", "evil.example")
        found = [ask(server, context, name).status_code for name in names]
        with browsing(server) as client, pytest.raises(httpx.TransportError):
            client.get("/v1/collection")

    assert found == [200, 200, 200, 421]


def test_a_stranger_and_old_tls_are_refused(collection: Path, authority: trustme.CA, tmp_path: Path) -> None:
    """A client that does not know who signed goes away by itself; one of TLS 1.1 is sent away."""
    old = trusting(authority)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with running(plain(collection, tls=keep(authority, tmp_path, "127.0.0.1"))) as server:
        for context in (trusting(trustme.CA()), old):
            with pytest.raises(httpx.ConnectError):
                ask(server, context)
        status = ask(server, trusting(authority)).status_code

    assert status == 200


def test_a_new_certificate_is_shown_without_a_restart(collection: Path, authority: trustme.CA, tmp_path: Path) -> None:
    """Also its names are known; torn files change nothing."""
    kept = keep(authority, tmp_path, "127.0.0.1", "first.example")
    with running(plain(collection, tls=kept)) as server:
        context = trusting(authority)
        before = shown_names(server, context)
        keep(authority, tmp_path, "127.0.0.1", "second.example")
        after = shown_names(server, context)
        found = [ask(server, context, name).status_code for name in ("first.example", "second.example")]
        kept.certificate.write_bytes(b"torn")
        torn = shown_names(server, context)

    assert before == {"127.0.0.1", "first.example"}
    assert after == torn == {"127.0.0.1", "second.example"}
    assert found == [421, 200]


def test_clients_show_their_certificates_where_it_is_asked_for(
    collection: Path, authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are known by its name, as over gRPC; one without, or of a stranger, is not let in, also after a reload."""
    caplog.set_level("INFO", "whatwhere.service.api.interceptor")
    desk = authority.issue_cert("desk.example", common_name="desk")
    strange = trustme.CA().issue_cert("desk.example", common_name="desk")
    kept = keep(authority, tmp_path, "127.0.0.1", client_ca=True)
    with running(plain(collection, tls=kept)) as server:
        for _ in range(2):
            known = ask(server, trusting(authority, desk)).status_code
            for context in (trusting(authority), trusting(authority, strange)):
                with pytest.raises(httpx.TransportError):
                    ask(server, context)
            keep(authority, tmp_path, "127.0.0.1", client_ca=True)

    assert known == 200
    assert {record.client for record in caplog.records if record.message == "request"} == {"certificate:desk"}  # type: ignore[attr-defined]


def test_a_handshake_that_does_not_come_is_not_waited_for(
    collection: Path, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is cut when its time is over."""
    monkeypatch.setattr("whatwhere.service.web.serving._HANDSHAKE_S", 0.5)
    with running(plain(collection, tls=keep(authority, tmp_path, "127.0.0.1"))) as server, connected(server) as silent:
        answer = rest(silent)

    assert answer == b""
