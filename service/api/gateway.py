"""Pass a caller's name and refused requests from the web server to the interceptor of the same process."""

import hmac
import secrets
from dataclasses import dataclass, field

from whatwhere.indexer.errors import WhatwhereError

CLIENT = "x-whatwhere-client-bin"
_KEY_BYTES = 32
_NO_MESSAGE = b"\0"  # no message begins with it: field number 0 does not exist


@dataclass
class Gateway:
    """Authenticates metadata of the web server's calls: the HTTP client's name, and errors of conversion.

    `key` is random per process and never leaves it: the same metadata from any other client is ignored.
    """

    key: bytes = field(default_factory=lambda: secrets.token_bytes(_KEY_BYTES), repr=False)
    _refusals: dict[bytes, WhatwhereError] = field(default_factory=dict)

    def named(self, client: str) -> tuple[str, bytes]:
        """Return the call metadata that names the client."""
        return CLIENT, self.key + client.encode()

    def client(self, value: bytes) -> str | None:
        """Return the client named in a metadata value; None if the value is not from the web server."""
        if not hmac.compare_digest(value[:_KEY_BYTES], self.key):
            return None
        return value[_KEY_BYTES:].decode()

    def refuse(self, error: WhatwhereError) -> bytes:
        """Return a placeholder message for a request that could not be converted; valid until it is taken."""
        stand_in = _NO_MESSAGE + secrets.token_bytes(_KEY_BYTES)
        self._refusals[stand_in] = error
        return stand_in

    def take(self, message: bytes) -> WhatwhereError | None:
        """Return and forget the error of a placeholder; None for a real message."""
        return self._refusals.pop(message, None) if message.startswith(_NO_MESSAGE) else None
