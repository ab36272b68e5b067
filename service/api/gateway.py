"""What the web side tells the interceptor where nobody else can: the two live in one process."""

import hmac
import secrets
from dataclasses import dataclass, field

from whatwhere.indexer.errors import WhatwhereError

CLIENT = "x-whatwhere-client-bin"
_KEY_BYTES = 32
_NO_MESSAGE = b"\0"  # no message begins with it: there is no field of number 0


@dataclass
class Gateway:
    """Names the caller of a call that the web side makes, and why it could make no message of what was sent.

    `key` is new in every process and never leaves it: whoever else sends the metadata is not believed.
    """

    key: bytes = field(default_factory=lambda: secrets.token_bytes(_KEY_BYTES), repr=False)
    _refusals: dict[bytes, WhatwhereError] = field(default_factory=dict)

    def named(self, client: str) -> tuple[str, bytes]:
        """Return the metadata that names the caller."""
        return CLIENT, self.key + client.encode()

    def client(self, told: bytes) -> str | None:
        """Return who is named there; None where it was not the web side that did."""
        if not hmac.compare_digest(told[:_KEY_BYTES], self.key):
            return None
        return told[_KEY_BYTES:].decode()

    def refuse(self, error: WhatwhereError) -> bytes:
        """Return what stands for a message that cannot be made; good until it is taken."""
        stand_in = _NO_MESSAGE + secrets.token_bytes(_KEY_BYTES)
        self._refusals[stand_in] = error
        return stand_in

    def take(self, message: bytes) -> WhatwhereError | None:
        """Return the error that a message stands for, once; None of a real one."""
        return self._refusals.pop(message, None) if message.startswith(_NO_MESSAGE) else None
