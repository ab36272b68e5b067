"""Read certificates and judge them: names, dates, order of a chain, kinds of keys."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

_OF_SERVERS = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_CURVES = ("secp256r1", "secp384r1")  # those that gRPC's TLS library offers and takes


@dataclass(frozen=True)
class Validity:
    """The time in which clients accept a whole chain."""

    begins: datetime
    ends: datetime

    @property
    def holds(self) -> bool:
        """Return whether it is that time now."""
        return self.begins <= datetime.now(UTC) <= self.ends


def validity(chain: bytes) -> Validity | None:
    """Return when all certificates of a chain are valid; None if this library cannot read one."""
    certificates = _certificates(chain)
    if not certificates:
        return None
    return Validity(
        max(certificate.not_valid_before_utc for certificate in certificates),
        min(certificate.not_valid_after_utc for certificate in certificates),
    )


def faults(chain: bytes) -> Iterator[str]:
    """Yield why clients refuse a chain now, one sentence for each certificate at fault."""
    now = datetime.now(UTC)
    for position, certificate in enumerate(_certificates(chain)):
        which = "" if position == 0 else f"certificate {position + 1} of the chain, {_subject(certificate)}, "
        if certificate.not_valid_after_utc < now:
            yield f"{which}has expired on {_day(certificate.not_valid_after_utc)}: clients will refuse it: renew it"
        elif certificate.not_valid_before_utc > now:
            yield (
                f"{which}is not valid before {_day(certificate.not_valid_before_utc)}: clients will refuse it until "
                "then: also check this machine's clock"
            )


def names(chain: bytes) -> tuple[str, ...]:
    """Return the DNS names and IP addresses of the first certificate; none if a client would refuse it."""
    certificates = _certificates(chain)
    if not certificates:
        return ()
    shown = certificates[0]
    if not shown.not_valid_before_utc <= datetime.now(UTC) <= shown.not_valid_after_utc:
        return ()
    try:
        extensions = {type(extension.value): extension.value for extension in shown.extensions}
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):  # clients cannot read it either
        return ()
    usage, found = extensions.get(x509.ExtendedKeyUsage), extensions.get(x509.SubjectAlternativeName)
    if isinstance(usage, x509.ExtendedKeyUsage) and not _OF_SERVERS & set(usage):
        return ()
    if not isinstance(found, x509.SubjectAlternativeName):
        return ()
    return tuple(str(name.value) for name in found if isinstance(name, x509.DNSName | x509.IPAddress))


def position_of(key: bytes, chain: bytes) -> int | None:
    """Return the position, from 0, of the certificate that belongs to a private key; None if there is none."""
    try:
        wanted = _bytes(load_pem_private_key(key, None).public_key())
        return next((n for n, each in enumerate(_certificates(chain)) if _bytes(each.public_key()) == wanted), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def unusable_key(key: bytes) -> str | None:
    """Return the kind of a private key that gRPC's TLS library refuses, though OpenSSL takes it; else None."""
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None  # OpenSSL has read it
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return None if private.curve.name in _CURVES else f"EC {private.curve.name}"
    if isinstance(private, rsa.RSAPrivateKey):
        return None
    return type(private).__name__.removesuffix("PrivateKey")


def _certificates(chain: bytes) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(chain)
    except ValueError:  # OpenSSL has read it, and gRPC's own library may
        return ()


def _subject(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string()
    except ValueError:
        return f"number {certificate.serial_number}"


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _bytes(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]
