"""Connections of a client: which server a request goes to, when it is tried again, what is kept alive."""

import json
from collections.abc import Mapping
from typing import Any

import grpc

from whatwhere.indexer import errors
from whatwhere.service.client.targets import Target

_BALANCED: Mapping[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": f"whatwhere.v1.{name}"} for name in ("ImageSearchService", "AdminService")],
            "retryPolicy": {
                "maxAttempts": 5,  # the most that gRPC makes
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
# Every connection watches the health of its server, so that requests go to others while one starts, drains or is
# broken. Not where there is one alone: what it says of itself helps more than that nobody serves.
_WATCHING: Mapping[str, Any] = {**_BALANCED, "healthCheckConfig": {"serviceName": ""}}
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),  # the server says what is too large
    ("grpc.per_rpc_retry_buffer_size", 128 * 1024 * 1024),  # a request above gRPC's 256 KiB would not be tried again
    ("grpc.keepalive_time_ms", 30_000),  # while calls are open: a server that went away without a word is noticed
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),  # gRPC's two minutes are long for a server that is back
)


def open_channel(
    target: Target, credentials: grpc.ChannelCredentials | None, server_name: str | None = None
) -> grpc.Channel:
    """Return a channel to a target, in plain text without `credentials`.

    `server_name` is what the servers' certificates must be for, in place of the address; raises InvalidRequest where
    several servers have none in common, for gRPC believes all servers of a channel by one name.
    """
    if credentials is None and server_name is not None:
        raise errors.InvalidRequest(
            f"the server's name {server_name} goes with TLS: give the authorities to trust, too", field="server_name"
        )
    if credentials is not None and target.several and target.host is None and server_name is None:
        raise errors.InvalidRequest(
            f"{target.text}: by TLS, several servers go by one name that all their certificates are for: give it "
            "(server_name, --server-name)",
            field="server_name",
        )
    options: list[tuple[str, Any]] = [
        *_OPTIONS,
        ("grpc.service_config", json.dumps(_WATCHING if target.several else _BALANCED)),
    ]
    if target.loopback or len(target.servers) > 1:  # a proxy is asked for one server, and this machine's not at all
        options.append(("grpc.enable_http_proxy", 0))
    if server_name is not None:
        options.append(("grpc.default_authority", server_name))
    if credentials is None:
        return grpc.insecure_channel(target.uri, options)
    return grpc.secure_channel(target.uri, credentials, options)
