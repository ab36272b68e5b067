"""TLS credentials of servers, reloaded when their files change, and of clients."""

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
from whatwhere.indexer.storage.bounded import read_bounded
from whatwhere.indexer.storage.files import FileVersion, version_of
from whatwhere.service.security.tls_files import TlsFiles

_MAX_BYTES = 16 * 1024 * 1024  # of a file of certificates; all CAs of a system take a quarter of one MiB
_NOT_ITS_KEY = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")  # the second if one is RSA and the other EC
_OF_SERVERS = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}

log = logging.getLogger(__name__)

_Version = tuple[FileVersion, ...]
_Made = TypeVar("_Made")


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that follow the files: each new connection uses the current certificate.

    If the files become invalid (while a new certificate is written before its key, for example), the reason is logged
    once, the previous certificate stays in use, and every new connection checks the files again. Raises
    CredentialsUnreadable if the files are invalid at the start.
    """
    followed = _Followed(files, _configuration)
    return grpc.dynamic_ssl_server_credentials(
        followed.made,
        followed.fetch,  # type: ignore[arg-type] # the stubs lack that None keeps the current configuration
        require_client_authentication=files.client_ca is not None,
    )


class ServerContext:
    """A context for the standard library's TLS that follows the files as `server_credentials` does.

    Raises CredentialsUnreadable if the files are invalid at the start.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._followed = _Followed(files, _certified)
        self.context = self._followed.made.context
        self.context.sni_callback = self._use_current  # called in every handshake, with or without a name

    @property
    def names(self) -> tuple[str, ...]:
        """DNS names and IP addresses of the current certificate; empty if it has expired."""
        return self._followed.made.names

    def _use_current(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        self._followed.fetch()
        connection.context = self._followed.made.context


def channel_credentials(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials:
    """Return a client's credentials, which trust `ca` (a PEM file), or the system's CAs by default.

    `certificate` and `key` are the client's own for mutual TLS. Raises CredentialsUnreadable if a file is invalid or
    only one of the two is given.
    """
    roots = _system_roots() if ca is None else _bytes(ca)
    if ca is not None and roots is not None:
        _check_certificates(roots, ca)
    if certificate is None and key is None:
        return grpc.ssl_channel_credentials(roots)
    if certificate is None or key is None:
        raise CredentialsUnreadable(f"{certificate or key}: a client's certificate and key go together: give both")
    pair = _Pair(_bytes(certificate), _bytes(key))
    _check_pair(pair, certificate, key)
    return grpc.ssl_channel_credentials(roots, pair.key, pair.certificate)


@dataclass(frozen=True, repr=False)
class _Pair:
    """The PEM bytes of a certificate chain and of its key."""

    certificate: bytes
    key: bytes


class _Followed(Generic[_Made]):
    """An object made of the last valid files. Thread-safe: gRPC calls `fetch` from several threads."""

    def __init__(self, files: TlsFiles, make: Callable[[TlsFiles], _Made]) -> None:
        self._files = files
        self._make = make
        self._lock = threading.Lock()
        self._reported: str | None = None
        self._version = _version(files)
        self.made = make(files)

    def fetch(self) -> _Made | None:
        """Return a new object if the files have changed and are valid, else None."""
        with self._lock:
            try:
                version = _version(self._files)  # before the bytes, so that a later change is noticed
                if version == self._version:
                    self._reported = None
                    return None
                made = self._make(self._files)
            except Exception as error:  # connections continue with the previous certificate
                if self._reported != str(error):
                    log.error(  # noqa: TRY400 - a traceback only for unexpected errors
                        "still using the previous certificate: %s",
                        error,
                        exc_info=None if isinstance(error, CredentialsUnreadable | OSError) else error,
                    )
                self._reported = str(error)
                return None
            self.made, self._version, self._reported = made, version, None
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
    """Read and check the files. Raises CredentialsUnreadable. The checked bytes are those that are served."""
    pair = _Pair(_bytes(files.certificate), _bytes(files.key))
    _check_pair(pair, files.certificate, files.key)
    roots = None
    if files.client_ca is not None:
        roots = _bytes(files.client_ca)
        _check_certificates(roots, files.client_ca)
    if _has_expired(pair.certificate):
        log.warning("%s has expired: clients will refuse it", files.certificate)
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)], roots)


@dataclass(frozen=True)
class _Certified:
    """A TLS context of the standard library, and the names of its certificate."""

    context: ssl.SSLContext
    names: tuple[str, ...]


def _certified(files: TlsFiles) -> _Certified:
    """Read and check the files. Raises CredentialsUnreadable. `_configuration` logs an expired certificate."""
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
        return read_bounded(path, _MAX_BYTES)
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> CredentialsUnreadable:
    return CredentialsUnreadable(f"{error.filename}: {error.strerror}: give a PEM file that this user can read")


# --- checks -----------------------------------------------------------------------------------------------------


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield a path to these bytes: OpenSSL reads certificates only from files.

    On Linux a key never reaches a disk; elsewhere it does for a moment, in a file that only its owner can read.
    """
    if not hasattr(os, "memfd_create"):
        with NamedTemporaryFile(prefix="whatwhere-") as named:  # created with mode 600
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
        raise CredentialsUnreadable(
            f"{path}: not a valid PEM certificate ({_reason(error)}): give a complete PEM file"
        ) from error


def _check_pair(pair: _Pair, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a server context with certificate and key. Raises CredentialsUnreadable if gRPC could not use them."""

    def refuse() -> str:  # otherwise OpenSSL would prompt at the terminal
        raise CredentialsUnreadable(f"{key}: encrypted: give the key without a passphrase (`openssl pkey -in KEY`)")

    _check_certificates(pair.certificate, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with _as_file(pair.certificate) as first, _as_file(pair.key) as second:
            context.load_cert_chain(first, second, refuse)
    except ssl.SSLError as error:
        if error.reason in _NOT_ITS_KEY:
            raise CredentialsUnreadable(f"{key}: not the key of {certificate}: give a matching pair") from error
        raise CredentialsUnreadable(
            f"{key}: not a valid PEM private key for {certificate} ({_reason(error)}): give a matching pair"
        ) from error
    return context


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "unreadable").replace("_", " ").lower()


def _has_expired(certificate: bytes) -> bool:
    shown = _shown(certificate)
    return shown is not None and shown.not_valid_after_utc < datetime.now(UTC)


def _names(certificate: bytes) -> tuple[str, ...]:
    """Return the DNS names and IP addresses of the certificate; none if a client would refuse it."""
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

    None if OpenSSL has read it but this library cannot: gRPC's own library may, so the server starts all the same.
    """
    try:
        return x509.load_pem_x509_certificate(certificate)
    except ValueError:
        return None


def _system_roots() -> bytes | None:
    """Return the CAs that the system trusts; None (gRPC's own list) if it has none."""
    places = ssl.get_default_verify_paths()
    if places.cafile is not None:
        return _bytes(Path(places.cafile))
    if places.capath is not None:  # the file names by which OpenSSL looks them up
        return b"\n".join(map(_bytes, sorted(Path(places.capath).glob("*.[0-9]")))) or None
    return None
