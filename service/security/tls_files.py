"""The files of a server's TLS. Plain values: importing this needs no gRPC."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a server. With `client_ca` every client must show a certificate that one of these has signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
