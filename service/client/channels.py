"""Open gRPC channels: load balancing, retries, health checks and keepalive."""

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
                "maxAttempts": 5,  # gRPC's maximum
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
# With several servers, each connection watches the health of its server, so that requests go to others while one
# starts, drains or is broken. A single server's own error helps more than "no server is serving".
_WATCHING: Mapping[str, Any] = {**_BALANCED, "healthCheckConfig": {"serviceName": ""}}
# While a call is open, a server that vanished is noticed after the sum, which is less than the default timeout.
_PING_AFTER_MS = 30_000
_PING_ANSWERED_MS = 20_000
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),  # the server's error names its limit
    ("grpc.per_rpc_retry_buffer_size", 128 * 1024 * 1024),  # requests above gRPC's default of 256 KiB are not retried
    ("grpc.max_reconnect_backoff_ms", 5_000),  # gRPC's default is two minutes
)


def open_channel(
    target: Target, credentials: grpc.ChannelCredentials | None, server_name: str | None = None
) -> grpc.Channel:
    """Open a channel to a target, in plain text without `credentials`.

    The servers' certificates must be valid for `server_name` if it is given, else for the address. Raises
    InvalidRequest if a `server_name` comes without credentials, or if several servers with TLS have no common name:
    gRPC checks all servers of a channel against one name.
    """
    if credentials is None and server_name is not None:
        raise errors.InvalidRequest(
            f"the server name {server_name} needs TLS: also give the CAs to trust", field="server_name"
        )
    if credentials is not None and target.several and target.host is None and server_name is None:
        raise errors.InvalidRequest(
            f"{target.text}: with TLS, all servers need certificates for one common name: give this name "
            "(server_name, --server-name)",
            field="server_name",
        )
    options: list[tuple[str, Any]] = [
        *_OPTIONS,
        ("grpc.keepalive_time_ms", _PING_AFTER_MS),
        ("grpc.http2.ping_timeout_ms", _PING_ANSWERED_MS),  # gRPC 1.8x never arms keepalive_timeout_ms below a minute
        ("grpc.service_config", json.dumps(_WATCHING if target.several else _BALANCED)),
    ]
    if target.loopback or len(target.servers) > 1:  # a proxy is used only for a single remote server
        options.append(("grpc.enable_http_proxy", 0))
    if server_name is not None:
        options.append(("grpc.default_authority", server_name))
    if credentials is None:
        return grpc.insecure_channel(target.uri, options)
    return grpc.secure_channel(target.uri, credentials, options)
