"""Serve: `whatwhere serve`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.service.cli.app import app
from whatwhere.service.cli.options import Collection, CollectionWeights, Device, OnDevice
from whatwhere.service.observability.log_format import LogFormat
from whatwhere.service.security.tls_files import TlsFiles
from whatwhere.service.settings import Batching, Limits, ServerSettings

_LIMITS = Limits()
_TO_THE_NETWORK, _TO_BROWSERS, _LOAD, _WATCHING = "To the network", "To browsers", "Load", "Watching"


@app.command(context_settings={"auto_envvar_prefix": "WHATWHERE_SERVE"})
def serve(
    collection: Collection,
    listen: Annotated[str, typer.Option(help="Address and port; port 0 takes a free one.")] = "127.0.0.1:50051",
    device: OnDevice = Device.AUTO,
    weights: CollectionWeights = None,
    refresh: Annotated[
        float, typer.Option(min=0, max=86400, metavar="SECONDS", help="Look for a newer generation so often; 0: never.")
    ] = 1.0,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            help="The server's certificate chain, PEM. Changed files are taken by the next connection.",
            rich_help_panel=_TO_THE_NETWORK,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="The certificate's private key, PEM.", rich_help_panel=_TO_THE_NETWORK)
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            help="Let in only who has a certificate of this authority (mutual TLS).", rich_help_panel=_TO_THE_NETWORK
        ),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="Let in only who has a token of this file, made by `whatwhere token create`. Read again when changed.",
            rich_help_panel=_TO_THE_NETWORK,
        ),
    ] = None,
    allow_insecure: Annotated[
        bool,
        typer.Option(
            "--allow-insecure",
            help="Listen beyond this machine without TLS, or without tokens and client certificates: whoever reaches "
            "the port may search, and whoever is on the way may read along.",
            rich_help_panel=_TO_THE_NETWORK,
        ),
    ] = False,
    reflection: Annotated[
        bool, typer.Option(help="Tell callers the methods and messages.", rich_help_panel=_TO_THE_NETWORK)
    ] = True,
    web: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve the page, and the methods as JSON over HTTP, here; by the same certificate and tokens.",
            rich_help_panel=_TO_BROWSERS,
        ),
    ] = None,
    web_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name that browsers may know the page by, beside the address's own and the certificate's; "
            "may be repeated.",
            rich_help_panel=_TO_BROWSERS,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Cores to use.", show_default="all of this process", rich_help_panel=_LOAD),
    ] = None,
    max_concurrent: Annotated[
        int, typer.Option(min=1, help="Requests at once.", rich_help_panel=_LOAD)
    ] = _LIMITS.max_concurrent,
    max_concurrent_per_client: Annotated[
        int, typer.Option(min=1, help="Of one token, certificate or address.", rich_help_panel=_LOAD)
    ] = _LIMITS.max_concurrent_per_client,
    max_queue: Annotated[
        int, typer.Option(min=0, help="Uploads that wait for a thread; more are sent away.", rich_help_panel=_LOAD)
    ] = _LIMITS.max_queued_uploads,
    max_image_mib: Annotated[
        int, typer.Option(min=1, max=1024, help="The largest upload.", rich_help_panel=_LOAD)
    ] = _LIMITS.image.max_bytes // 2**20,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Pictures that are described together.",
            show_default="1 on a CPU, 8 on CUDA",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    batch_delay: Annotated[
        float,
        typer.Option(min=0, max=1000, metavar="MS", help="A picture waits so long for others.", rich_help_panel=_LOAD),
    ] = 0.0,
    remembered_uploads: Annotated[
        int,
        typer.Option(
            min=0,
            max=1_000_000,
            metavar="N",
            help="Uploads whose descriptions are kept for the next page or box, 40 KB each.",
            rich_help_panel=_LOAD,
        ),
    ] = ServerSettings.remembered_uploads,
    drain_delay: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="After SIGTERM go on answering for so long while health says NOT_SERVING: load balancers notice.",
            rich_help_panel=_LOAD,
        ),
    ] = 0.0,
    grace: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Then let requests in flight end for at most so long.", rich_help_panel=_LOAD
        ),
    ] = 10.0,
    health: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Answer the health service, and nothing else, here too, without TLS: for probes.",
            rich_help_panel=_WATCHING,
        ),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Answer Prometheus here.", rich_help_panel=_WATCHING)
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="A line for each request, on standard error.", rich_help_panel=_WATCHING)
    ] = LogFormat.TEXT,
    traces: Annotated[
        bool,
        typer.Option(
            "--traces",
            help="Send OpenTelemetry traces to where OTEL_EXPORTER_OTLP_ENDPOINT says; needs the extra `tracing`.",
            rich_help_panel=_WATCHING,
        ),
    ] = False,
) -> None:
    """Serve a collection over gRPC until SIGTERM or Ctrl-C, then finish the requests in flight.

    A generation that is published meanwhile is served as soon as it is open, without a pause. The address is printed
    when the server answers, and the page's on a second line. Beyond loopback it wants TLS, and tokens or client
    certificates.

    Every option can be set in the environment, too: `--max-queue` as `WHATWHERE_SERVE_MAX_QUEUE`.
    """
    from whatwhere.service import server
    from whatwhere.service.observability.logs import configure_logging

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
        health_listen=health,
        metrics_listen=metrics,
        reflection=reflection,
        traces=traces,
        threads=threads,
        remembered_uploads=remembered_uploads,
        grace_s=grace,
        drain_s=drain_delay,
        limits=Limits(
            image=ImageLimits(max_bytes=max_image_mib * 2**20),
            max_concurrent=max_concurrent,
            max_concurrent_per_client=max_concurrent_per_client,
            max_queued_uploads=max_queue,
        ),
        batching=Batching(batch_size, batch_delay / 1000),
    )
    configure_logging(log_format)
    server.serve(settings, lambda addresses: _announce(settings, addresses))


def _announce(settings: ServerSettings, addresses: Mapping[str, str]) -> None:
    print(f"serving {settings.collection} on {addresses['listen']}", flush=True)
    if "web" in addresses:
        print(f"page: {'http' if settings.tls is None else 'https'}://{addresses['web']}/", flush=True)


def _tls_files(certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    if certificate is not None and key is not None:
        return TlsFiles(certificate, key, client_ca)
    if (certificate, key, client_ca) != (None, None, None):
        raise typer.BadParameter("--tls-certificate and --tls-key go together, and --tls-client-ca with both")
    return None
