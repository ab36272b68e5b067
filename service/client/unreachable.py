"""Say why a server cannot be reached, by what gRPC says of the connection."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from whatwhere.service.client.targets import Target

_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # gRPC takes the first that is set
_NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")
_DEFAULT = "check that `whatwhere serve` runs there, and whether it uses TLS"
# Fragments of gRPC's messages; a test makes each one.
_REASONS: Sequence[tuple[str, str]] = (
    (
        "HTTP proxy returned response code",
        "the proxy does not let it through",
    ),
    (
        "Hostname Verification Check failed",
        "its certificate is for another name: connect by a name that the certificate has, or give that name "
        "(server_name, --server-name)",
    ),
    ("certificate has expired", "its certificate, or one of its chain, has expired: renew it on the server"),
    (
        "certificate is not yet valid",
        "its certificate is not valid yet: wait, or set the clock of this machine or of the one that issued it",
    ),
    (
        r"unable to get (local )?issuer certificate|self.signed certificate|unable to verify the first certificate",
        "its certificate is not signed by a CA that is trusted here, or its chain lacks an intermediate: give the CA "
        "(--ca FILE), or complete the chain on the server",
    ),
    ("WRONG_VERSION_NUMBER", "it answers without TLS: connect without --tls and --ca, or check the port"),
    ("CERTIFICATE_REQUIRED|NO_COMMON_SIGNATURE_ALGORITHMS|UNKNOWN_CA", "it refuses this client's certificate"),
    ("Failed parsing HTTP/2|Expected SETTINGS frame", "it does not speak gRPC: the port may be that of the page"),
    ("Connection refused", "nothing listens there: check that `whatwhere serve` runs, and its port"),
    ("Domain name not found|address lookup failed|hostname lookup error", "the name has no address: check it"),
    ("No such file or directory", "there is no such socket: check that `whatwhere serve --listen unix:PATH` runs"),
    ("unreachable|No route to host", "no network leads there: check the address"),
    ("timed out|Timeout", "the machine does not answer: check the address, and what filters connections to it"),
)
_CLOSED_WITHOUT_TLS = "it closed the connection: it may want TLS (--tls, --ca FILE)"
_CLOSED_WITH_TLS = "it closed the connection: it may want a client certificate (--tls-certificate, --tls-key)"


@dataclass(frozen=True)
class Way:
    """How a client connects: for messages."""

    address: str
    timeout_s: float
    with_tls: bool = False
    proxy: str = ""  # what leads connections elsewhere, for people

    def why(self, details: str) -> str:
        """Return why there is no answer, with the remedy, and what gRPC says."""
        reason = next((text for pattern, text in _REASONS if re.search(pattern, details)), None)
        if self.proxy and "Connection refused" in details:
            reason = "the connection was refused, there or by the proxy"
        if reason is None and "Socket closed" in details:
            reason = _CLOSED_WITH_TLS if self.with_tls else _CLOSED_WITHOUT_TLS
        said = details.rpartition("last error: ")[2]
        return f"{reason or _DEFAULT}{self.proxied} ({said})"

    @property
    def proxied(self) -> str:
        """Return a sentence about the proxy, if there may be one."""
        return f"; {self.proxy}" if self.proxy else ""


def proxy_of(target: Target, environment: Mapping[str, str] = os.environ) -> str:
    """Return the proxy that gRPC may use for a target by the environment, for people; "" if none."""
    if target.loopback or target.host_name is None:
        return ""
    variable = next((name for name in _PROXY_VARIABLES if environment.get(name)), None)
    if variable is None:
        return ""
    from urllib import request  # noqa: PLC0415 - seldom needed, and slow to import

    excepted = next((environment[name] for name in _NO_PROXY_VARIABLES if environment.get(name)), "")
    if excepted and request.proxy_bypass_environment(target.host_name, {"no": excepted}):  # type: ignore[attr-defined]
        return ""
    place = urlsplit(environment[variable])
    shown = f"{place.hostname}:{place.port}" if place.port else place.hostname or "a proxy"
    return f"the variable {variable} leads connections through {shown}: unset it, or add {target.host_name} to no_proxy"
