"""TLS credentials of servers, reloaded when their files change, and of clients."""

import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Generic, TypeVar

import grpc

from whatwhere.indexer.errors import CredentialsUnreadable
from whatwhere.indexer.storage.bounded import read_bounded
from whatwhere.indexer.storage.files import FileVersion, version_of
from whatwhere.service.security.certificates import Validity, faults, names, position_of, unusable_key, validity
from whatwhere.service.security.tls_files import TlsFiles

_MAX_BYTES = 16 * 1024 * 1024  # of a file of certificates; all CAs of a system take a quarter of one MiB
_NOT_ITS_KEY = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")  # the second if one is RSA and the other EC
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors write it; gRPC's TLS library refuses it
_TRUSTED = b"-----BEGIN TRUSTED CERTIFICATE-----"

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


class CertificateDates:
    """The validity of the certificate that new connections are shown, for monitoring.

    Raises CredentialsUnreadable if the files are invalid at the start.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._followed = _Followed(files, _dates, reports=False)

    @property
    def current(self) -> Validity | None:
        """Return when its whole chain is valid; None if that is unknown."""
        self._followed.fetch()
        return self._followed.made.validity


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

    def __init__(self, files: TlsFiles, make: Callable[[TlsFiles], _Made], *, reports: bool = True) -> None:
        self._files = files
        self._reports = reports
        self._make = make
        self._lock = threading.Lock()
        self._reported: str | None = None
        self._version = _version(files)
        self.made = make(files)
        self._validity = validity(_bytes(files.certificate))

    def fetch(self) -> _Made | None:
        """Return a new object if the files have changed and are valid, else None."""
        with self._lock:
            try:
                version = _version(self._files)  # before the bytes, so that a later change is noticed
                if version == self._version:
                    self._reported = None
                    return None
                self._refuse_worse()
                made = self._make(self._files)
            except Exception as error:  # connections continue with the previous certificate
                if self._reports and self._reported != str(error):
                    log.error(  # noqa: TRY400 - a traceback only for unexpected errors
                        "still using the previous certificate: %s",
                        error,
                        exc_info=None if isinstance(error, CredentialsUnreadable | OSError) else error,
                    )
                self._reported = str(error)
                return None
            self.made, self._version, self._reported = made, version, None
            self._validity = validity(_bytes(self._files.certificate))
            if self._reports:
                log.info("certificate=%s reloaded", self._files.certificate)
            return made

    def _refuse_worse(self) -> None:
        """Raise CredentialsUnreadable if clients will refuse the new certificate and accept the previous one."""
        fault = next(faults(_bytes(self._files.certificate)), None)
        if fault is not None and self._validity is not None and self._validity.holds:
            raise CredentialsUnreadable(f"{self._files.certificate} {fault}")


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
    for fault in faults(pair.certificate):
        log.warning("%s %s", files.certificate, fault)
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)], roots)


@dataclass(frozen=True)
class _Certified:
    """A TLS context of the standard library, and the names of its certificate."""

    context: ssl.SSLContext
    names: tuple[str, ...]


def _certified(files: TlsFiles) -> _Certified:
    """Read and check the files. Raises CredentialsUnreadable. `_configuration` logs what clients will refuse."""
    pair = _Pair(_bytes(files.certificate), _bytes(files.key))
    context = _check_pair(pair, files.certificate, files.key)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if files.client_ca is not None:
        roots = _bytes(files.client_ca)
        _check_certificates(roots, files.client_ca)
        with _as_file(roots) as file:
            context.load_verify_locations(file)
        context.verify_mode = ssl.CERT_REQUIRED
    return _Certified(context, names(pair.certificate))


@dataclass(frozen=True)
class _Dated:
    validity: Validity | None


def _dates(files: TlsFiles) -> _Dated:
    pair = _Pair(_bytes(files.certificate), _bytes(files.key))
    _check_pair(pair, files.certificate, files.key)
    return _Dated(validity(pair.certificate))


def _bytes(path: Path) -> bytes:
    try:
        return read_bounded(path, _MAX_BYTES).removeprefix(_BYTE_ORDER_MARK)
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
    if _TRUSTED in content:
        raise CredentialsUnreadable(
            f"{path}: an OpenSSL TRUSTED CERTIFICATE, which gRPC cannot read: convert it with `openssl x509 -in {path}`"
        )
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
            position = position_of(pair.key, pair.certificate)
            if position is not None:
                raise CredentialsUnreadable(
                    f"{certificate}: the chain is in the wrong order: its certificate {position + 1} belongs to {key}: "
                    "put this first, then the issuer of each"
                ) from error
            raise CredentialsUnreadable(f"{key}: not the key of {certificate}: give a matching pair") from error
        if error.reason == "EE_KEY_TOO_SMALL":
            raise CredentialsUnreadable(f"{key}: too short to be safe: give an RSA key of 2048 bits or more") from error
        raise CredentialsUnreadable(
            f"{key}: not a valid PEM private key for {certificate} ({_reason(error)}): give a matching pair"
        ) from error
    if (kind := unusable_key(pair.key)) is not None:
        raise CredentialsUnreadable(
            f"{key}: gRPC cannot use a key of the kind {kind}: give an RSA key of 2048 bits or more, or an EC key on "
            "P-256 or P-384"
        )
    return context


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "unreadable").replace("_", " ").lower()


def _system_roots() -> bytes | None:
    """Return the CAs that the system trusts; None (gRPC's own list) if it has none."""
    places = ssl.get_default_verify_paths()
    if places.cafile is not None:
        return _bytes(Path(places.cafile))
    if places.capath is not None:  # the file names by which OpenSSL looks them up
        return b"\n".join(map(_bytes, sorted(Path(places.capath).glob("*.[0-9]")))) or None
    return None
