"""Serve a collection: `whatwhere serve`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from whatwhere.indexer.images.limits import MIB, UPLOAD_LIMITS, ImageLimits
from whatwhere.service.addresses import unix_path
from whatwhere.service.cli.app import app
from whatwhere.service.cli.options import Collection, CollectionWeights, Device, OnDevice
from whatwhere.service.cli.variables import check_variables
from whatwhere.service.observability.log_format import LogFormat
from whatwhere.service.security.tls_files import TlsFiles
from whatwhere.service.settings import Batching, Limits, ServerSettings
from whatwhere.service.signals import ending_at_once

_LIMITS = Limits()
_SECURITY, _WEB, _LOAD, _OBSERVABILITY = "Security", "Web page", "Load", "Observability"


@app.command(context_settings={"auto_envvar_prefix": "WHATWHERE_SERVE"})
def serve(
    context: typer.Context,
    collection: Collection,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address and port, or unix:PATH; port 0 takes a free port.")
    ] = "127.0.0.1:50051",
    device: OnDevice = Device.AUTO,
    weights: CollectionWeights = None,
    refresh: Annotated[
        float,
        typer.Option(
            min=0,
            max=86400,
            metavar="SECONDS",
            help="Interval of checks for a newer generation; 0: serve it on `whatwhere refresh` only.",
        ),
    ] = 1.0,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            help="Certificate chain of the server (PEM). Changed files apply from the next connection on.",
            rich_help_panel=_SECURITY,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Private key of the certificate (PEM).", rich_help_panel=_SECURITY)
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="Require client certificates signed by this CA (mutual TLS).", rich_help_panel=_SECURITY),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="Require a bearer token from this file (see `whatwhere token create`). Changes apply within a second.",
            rich_help_panel=_SECURITY,
        ),
    ] = None,
    allow_insecure: Annotated[
        bool,
        typer.Option(
            "--allow-insecure",
            help="Listen beyond this machine without TLS, or without tokens and client certificates. Everybody who "
            "reaches the port can search; everybody on the path can read the traffic.",
            rich_help_panel=_SECURITY,
        ),
    ] = False,
    reflection: Annotated[bool, typer.Option(help="Serve gRPC reflection.", rich_help_panel=_SECURITY)] = True,
    web: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve the page, and the methods as JSON over HTTP, at this address; same certificate and tokens.",
            rich_help_panel=_WEB,
        ),
    ] = None,
    web_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host name under which browsers reach the page, besides the address and the certificate's names; "
            "may be repeated.",
            rich_help_panel=_WEB,
        ),
    ] = None,
    web_path: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Path under which a reverse proxy publishes the page, if it passes the path on: /photos.",
            rich_help_panel=_WEB,
        ),
    ] = "",
    trusted_proxies: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address or network of a reverse proxy, or `unix`, whose X-Forwarded-For, -Proto and -Host headers "
            "are believed, so that limits count its clients; may be repeated.",
            rich_help_panel=_WEB,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Number of cores to use.", show_default="all available", rich_help_panel=_LOAD),
    ] = None,
    max_concurrent: Annotated[
        int, typer.Option(min=1, help="Maximum number of concurrent requests.", rich_help_panel=_LOAD)
    ] = _LIMITS.max_concurrent,
    max_concurrent_per_client: Annotated[
        int, typer.Option(min=1, help="The same, per token, certificate or address.", rich_help_panel=_LOAD)
    ] = _LIMITS.max_concurrent_per_client,
    max_connections: Annotated[
        int,
        typer.Option(
            min=1, help="Maximum number of connections to all ports, with or without a token.", rich_help_panel=_LOAD
        ),
    ] = _LIMITS.max_connections,
    max_connections_per_client: Annotated[
        int,
        typer.Option(
            min=1, help="The same, per IPv4 address and per /64 network of IPv6 addresses.", rich_help_panel=_LOAD
        ),
    ] = _LIMITS.max_connections_per_client,
    max_connection_age: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Age at which a gRPC connection is asked to end after its requests, so that clients connect again and "
            "find new servers; 0: never.",
            rich_help_panel=_LOAD,
        ),
    ] = ServerSettings.max_connection_age_s,
    max_queue: Annotated[
        int, typer.Option(min=0, help="Maximum number of queued uploads; more are rejected.", rich_help_panel=_LOAD)
    ] = _LIMITS.max_queued_uploads,
    max_image_mib: Annotated[
        int, typer.Option(min=1, max=1024, help="Maximum size of an upload.", rich_help_panel=_LOAD)
    ] = _LIMITS.image.max_bytes // 2**20,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Uploads per forward pass.",
            show_default="1 on a CPU, 8 on CUDA",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    batch_delay: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            metavar="MS",
            help="Time an upload waits for others to share its forward pass.",
            rich_help_panel=_LOAD,
        ),
    ] = 0.0,
    remembered_uploads: Annotated[
        int,
        typer.Option(
            min=0,
            max=1_000_000,
            metavar="N",
            help="Number of uploads whose descriptions are cached for the next page or box, 40 KB each.",
            rich_help_panel=_LOAD,
        ),
    ] = ServerSettings.remembered_uploads,
    drain_delay: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="After SIGTERM, time to keep answering while health says NOT_SERVING, so that load balancers notice.",
            rich_help_panel=_LOAD,
        ),
    ] = 0.0,
    grace: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Then, maximum time for requests in flight to finish.", rich_help_panel=_LOAD
        ),
    ] = 10.0,
    health: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Also serve the health service alone at this address, without TLS, for probes.",
            rich_help_panel=_OBSERVABILITY,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Serve Prometheus metrics at this address.", rich_help_panel=_OBSERVABILITY
        ),
    ] = None,
    log_format: Annotated[
        LogFormat,
        typer.Option(help="Format of the log on standard error, one line per request.", rich_help_panel=_OBSERVABILITY),
    ] = LogFormat.TEXT,
    traces: Annotated[
        bool,
        typer.Option(
            "--traces",
            help="Send OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT; needs the extra `tracing`.",
            rich_help_panel=_OBSERVABILITY,
        ),
    ] = False,
) -> None:
    """Serve a collection over gRPC until SIGTERM or Ctrl-C, then finish the requests in flight.

    A newly published generation is served as soon as it is open, without a pause. The server prints its address once it
    answers, and the page's address on a second line. Addresses beyond loopback require TLS, and tokens or client
    certificates.

    Every option can also be set in the environment: `--max-queue` as `WHATWHERE_SERVE_MAX_QUEUE`.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC writes its own lines past the log, and waits for a reader
    with ending_at_once():
        from whatwhere.service import server
        from whatwhere.service.observability.logs import logging_to_stderr

    check_variables(context, os.environ)
    settings = ServerSettings(
        collection,
        listen=listen,
        device=device.value,
        weights=weights,
        refresh_s=refresh,
        tls=_tls_files(tls_certificate, tls_key, tls_client_ca),
        tokens=tokens,
        allow_insecure=allow_insecure,
        web_listen=web,
        web_hosts=tuple(web_host or ()),
        web_path=web_path,
        trusted_proxies=tuple(trusted_proxies or ()),
        health_listen=health,
        metrics_listen=metrics,
        reflection=reflection,
        traces=traces,
        threads=threads,
        remembered_uploads=remembered_uploads,
        grace_s=grace,
        drain_s=drain_delay,
        max_connection_age_s=max_connection_age,
        limits=Limits(
            image=ImageLimits(max_image_mib * MIB, UPLOAD_LIMITS.max_pixels),
            max_concurrent=max_concurrent,
            max_concurrent_per_client=max_concurrent_per_client,
            max_connections=max_connections,
            max_connections_per_client=max_connections_per_client,
            max_queued_uploads=max_queue,
        ),
        batching=Batching(batch_size, batch_delay / 1000),
    )
    with logging_to_stderr(log_format):
        server.serve(settings, lambda addresses: _announce(settings, addresses))


def _announce(settings: ServerSettings, addresses: Mapping[str, str]) -> None:
    print(f"serving {settings.collection} on {addresses['listen']}", flush=True)
    if "web" in addresses:
        scheme = "http" if settings.tls is None else "https"
        url = f"{scheme}://{addresses['web']}{settings.web_path.rstrip('/')}/"
        print(f"page: {addresses['web'] if unix_path(addresses['web']) is not None else url}", flush=True)


def _tls_files(certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    if certificate is not None and key is not None:
        return TlsFiles(certificate, key, client_ca)
    if (certificate, key, client_ca) != (None, None, None):
        raise typer.BadParameter("--tls-certificate and --tls-key must be given together; --tls-client-ca needs both")
    return None
