"""TLS: the certificates of a server, followed on disk while it serves, and those of a client."""

import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Generic, TypeVar

import grpc
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from whatwhere.indexer.errors import CredentialsUnreadable
from whatwhere.indexer.storage.files import FileVersion, version_of

_NOT_ITS_KEY = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")  # the second where one is RSA, the other EC
_OF_SERVERS = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}

log = logging.getLogger(__name__)

_Version = tuple[FileVersion, ...]
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a server. With `client_ca` every client must show a certificate that one of these has signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that follow the files: each new connection gets the certificate that is there by then.

    What cannot be used any more (between a new certificate and its key the two do not fit) is logged once for each
    reason, the old goes on, and every new connection looks again. Raises CredentialsUnreadable for what cannot be used
    at the start.
    """
    followed = _Followed(files, _configuration)
    return grpc.dynamic_ssl_server_credentials(
        followed.made,
        followed.fetch,  # type: ignore[arg-type] # the stubs do not know that None keeps what there is
        require_client_authentication=files.client_ca is not None,
    )


class ServerContext:
    """What a server of the standard library's TLS is given: it follows the files as `server_credentials` does.

    `names` are those that the certificate is for: none of one that has expired. Raises CredentialsUnreadable.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._followed = _Followed(files, _certified)
        self.context = self._followed.made.context
        self.context.sni_callback = self._show_newest  # asked in every handshake, with a name or without

    @property
    def names(self) -> tuple[str, ...]:
        """The names and addresses of the certificate that is shown now."""
        return self._followed.made.names

    def _show_newest(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        self._followed.fetch()
        connection.context = self._followed.made.context


def channel_credentials(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials:
    """Return a client's credentials: servers are believed that `ca` has signed, without it one of the system's.

    `certificate` and `key`, only together, are what the client shows. Raises CredentialsUnreadable.
    """
    roots = _system_roots() if ca is None else _bytes(ca)
    if ca is not None and roots is not None:
        _check_certificates(roots, ca)
    if certificate is None and key is None:
        return grpc.ssl_channel_credentials(roots)
    if certificate is None or key is None:
        raise CredentialsUnreadable(f"{certificate or key}: a client's certificate and its key go together: give both")
    pair = _Pair(_bytes(certificate), _bytes(key))
    _check_pair(pair, certificate, key)
    return grpc.ssl_channel_credentials(roots, pair.key, pair.certificate)


@dataclass(frozen=True, repr=False)
class _Pair:
    """The bytes of a certificate with its chain, and of its key."""

    certificate: bytes
    key: bytes


class _Followed(Generic[_Made]):
    """What is made of the files as they were last good. gRPC asks from threads of its own, several at once."""

    def __init__(self, files: TlsFiles, make: Callable[[TlsFiles], _Made]) -> None:
        self._files = files
        self._make = make
        self._lock = threading.Lock()
        self._complaint: str | None = None
        self._version = _version(files)
        self.made = make(files)

    def fetch(self) -> _Made | None:
        """Return what is made of files that have changed, None to go on with the one before."""
        with self._lock:
            try:
                version = _version(self._files)  # before their bytes: a later change is then seen as one
                if version == self._version:
                    self._complaint = None
                    return None
                made = self._make(self._files)
            except Exception as error:  # whatever it is, connections go on
                if self._complaint != str(error):
                    log.error(  # noqa: TRY400 - a traceback only of what nobody foresaw
                        "the old certificate goes on: %s",
                        error,
                        exc_info=None if isinstance(error, CredentialsUnreadable | OSError) else error,
                    )
                self._complaint = str(error)
                return None
            self.made, self._version, self._complaint = made, version, None
            log.info("certificate=%s reloaded", self._files.certificate)
            return made


def _version(files: TlsFiles) -> _Version:
    paths = [path for path in (files.certificate, files.key, files.client_ca) if path is not None]
    try:
        stats = [path.stat() for path in paths]
    except OSError as error:
        raise _unreadable(error) from error
    return tuple(map(version_of, stats))


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """Read and check the files; raises CredentialsUnreadable. What was checked is what is served, byte for byte."""
    pair = _Pair(_bytes(files.certificate), _bytes(files.key))
    _check_pair(pair, files.certificate, files.key)
    roots = None
    if files.client_ca is not None:
        roots = _bytes(files.client_ca)
        _check_certificates(roots, files.client_ca)
    if _has_expired(pair.certificate):
        log.warning("%s: has expired: clients will refuse it", files.certificate)
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)], roots)


@dataclass(frozen=True)
class _Certified:
    """A certificate as the standard library shows it, and its names."""

    context: ssl.SSLContext
    names: tuple[str, ...]


def _certified(files: TlsFiles) -> _Certified:
    """Read and check the files, as `_configuration` does; that one warns of an expired certificate."""
    pair = _Pair(_bytes(files.certificate), _bytes(files.key))
    context = _check_pair(pair, files.certificate, files.key)
    names = _names(pair.certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if files.client_ca is not None:
        roots = _bytes(files.client_ca)
        _check_certificates(roots, files.client_ca)
        with _as_file(roots) as file:
            context.load_verify_locations(file)
        context.verify_mode = ssl.CERT_REQUIRED
    return _Certified(context, names)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> CredentialsUnreadable:
    return CredentialsUnreadable(f"{error.filename}: {error.strerror}: give a PEM file that this user can read")


# --- checks -----------------------------------------------------------------------------------------------------


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give a path to these bytes, for OpenSSL reads certificates from files alone.

    On Linux a key never reaches a disk; elsewhere it does for a moment, in a file that its owner alone may read.
    """
    if not hasattr(os, "memfd_create"):
        with NamedTemporaryFile(prefix="whatwhere-") as named:  # made with mode 600
            named.write(content)
            named.flush()
            yield named.name
        return
    descriptor = os.memfd_create("pem")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _check_certificates(content: bytes, path: Path) -> None:
    try:
        with _as_file(content) as file:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError as error:
        raise CredentialsUnreadable(f"{path}: no certificate in PEM ({_reason(error)}), or torn") from error


def _check_pair(pair: _Pair, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context that has loaded them; raises CredentialsUnreadable where gRPC would serve nobody."""

    def refuse() -> str:  # without it OpenSSL would ask at the terminal
        raise CredentialsUnreadable(f"{key}: encrypted: give the key without a passphrase (`openssl pkey -in KEY`)")

    _check_certificates(pair.certificate, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with _as_file(pair.certificate) as first, _as_file(pair.key) as second:
            context.load_cert_chain(first, second, refuse)
    except ssl.SSLError as error:
        if error.reason in _NOT_ITS_KEY:
            raise CredentialsUnreadable(
                f"{key}: not the key of {certificate}: give the two that belong together"
            ) from error
        raise CredentialsUnreadable(
            f"{key}: no private key in PEM that fits {certificate} ({_reason(error)}), or one of the two is torn"
        ) from error
    return context


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "unreadable").replace("_", " ").lower()


def _has_expired(certificate: bytes) -> bool:
    shown = _shown(certificate)
    return shown is not None and shown.not_valid_after_utc < datetime.now(UTC)


def _names(certificate: bytes) -> tuple[str, ...]:
    """Return the names and addresses that the certificate is for; none of one that a client would refuse."""
    shown = _shown(certificate)
    if shown is None or not shown.not_valid_before_utc <= datetime.now(UTC) <= shown.not_valid_after_utc:
        return ()
    try:
        extensions = {type(extension.value): extension.value for extension in shown.extensions}
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):  # clients cannot read it either
        return ()
    usage, names = extensions.get(x509.ExtendedKeyUsage), extensions.get(x509.SubjectAlternativeName)
    if isinstance(usage, x509.ExtendedKeyUsage) and not _OF_SERVERS & set(usage):
        return ()
    if not isinstance(names, x509.SubjectAlternativeName):
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))


def _shown(certificate: bytes) -> x509.Certificate | None:
    """Return the first certificate of a chain, the server's own.

    None for one that OpenSSL has read and the library cannot: gRPC's own may, so that is no reason not to start.
    """
    try:
        return x509.load_pem_x509_certificate(certificate)
    except ValueError:
        return None


def _system_roots() -> bytes | None:
    """Return the certificates that the system trusts; None, which is gRPC's own list, where it has none."""
    places = ssl.get_default_verify_paths()
    if places.cafile is not None:
        return _bytes(Path(places.cafile))
    if places.capath is not None:  # under the names that OpenSSL looks them up by
        return b"\n".join(map(_bytes, sorted(Path(places.capath).glob("*.[0-9]")))) or None
    return None
