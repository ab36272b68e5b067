"""A server from its start to its end: what it says of itself, whom it sends away, what it leaves in its log."""

import json
import re
import shutil
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.commands import Process, start
from tests.conftest import INDEXED_PHOTOGRAPHS, QUERY_PHOTOGRAPH
from tests.waiting import wait_until
from whatwhere.indexer.boxes import Box
from whatwhere.indexer.errors import (
    DeadlineExceeded,
    ImageNotFound,
    ServerNotReady,
    ServerOverloaded,
    ServerUnreachable,
)
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.indexer.pipeline.settings import IndexSettings
from whatwhere.service.api import health
from whatwhere.service.client.client import Client
from whatwhere.service.observability.tracing import Tracer
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import Server, create_server
from whatwhere.service.settings import Batching, Limits, ServerSettings

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.takes(40)]
LOOPBACK = "127.0.0.1:0"


@contextmanager
def running(settings: ServerSettings) -> Iterator[tuple[Server, str]]:
    """Run a server in this process; give it and its address."""
    server, port = create_server(settings)
    server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None)


@contextmanager
def process(collection: Path, *options: str) -> Iterator[tuple[Process, str]]:
    """Run a server of its own process; give that and its address."""
    with start("serve", "--collection", collection, "--listen", LOOPBACK, *options) as serving:
        try:
            yield serving, serving.stdout.readline().split()[-1]
        finally:
            serving.kill()


@contextmanager
def busy(server: Server) -> Iterator[None]:
    """Keep the network busy."""
    go, begun = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go.wait(60)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(server._batcher.run, wait)
        assert begun.wait(30)
        try:
            yield
        finally:
            go.set()


def numbers(port: int) -> Mapping[str, float]:
    """Return what Prometheus reads: a metric with its labels → its value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def metrics_port(serving: Process) -> int:
    """Read from the log, in JSON, where a process tells its numbers."""
    assert serving.stderr is not None
    ready = next(line for line in map(json.loads, serving.stderr) if line["event"] == "ready")
    return int(ready["metrics"].rpartition(":")[2])


def health_of(address: str, service: str = "") -> str:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


# --- start and end ----------------------------------------------------------------------------------------------


def test_a_server_that_starts_says_so_and_is_waited_for(collection: Path) -> None:
    """NOT_SERVING but alive, requests are refused; a client that asks meanwhile gets its answer when it is open."""
    server = Server(ServerSettings(collection, listen=LOOPBACK))
    server.start()
    address = f"127.0.0.1:{server.port}"
    starting = health_of(address), health_of(address, health.LIVE)
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:  # does not try again
        rpc.ImageSearchServiceStub(channel).GetCollection(pb.GetCollectionRequest(), timeout=30)
    with Client(address) as client, ThreadPoolExecutor(1) as pool:
        patient = pool.submit(client.collection)
        server.open()
        found = patient.result(60)
    opened = health_of(address)
    server.stop(grace=None)

    assert starting == ("NOT_SERVING", "SERVING")
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "starting" in str(refused.value.details())
    assert ("grpc-retry-pushback-ms", "2000") in [tuple(pair) for pair in refused.value.trailing_metadata()]
    assert found.image_count == 8
    assert opened == "SERVING"


def test_a_server_that_stays_closed_is_not_ready(collection: Path) -> None:
    """After its tries the client says what the server said."""
    server = Server(ServerSettings(collection, listen=LOOPBACK))
    server.start()
    with Client(f"127.0.0.1:{server.port}", timeout_s=20) as client, pytest.raises(ServerNotReady, match="try again"):
        client.collection()
    server.stop(grace=None)


def test_sigterm_loses_no_request(collection: Path) -> None:
    """Twelve uploads are in flight, most of them in the queue: all are answered, then the process ends well."""
    options = ("--metrics", LOOPBACK, "--grace", "60", "--log-format", "json")
    with process(collection, *options) as (serving, address):
        port = metrics_port(serving)
        with Client(address) as client, ThreadPoolExecutor(12) as pool:
            uploads = [pool.submit(client.search, QUERY_PHOTOGRAPH) for _ in range(12)]
            wait_until(lambda: arrived(port) == 12)
            serving.send_signal(signal.SIGTERM)
            answers = [future.result(90) for future in uploads]
        code = serving.wait(60)

    assert [len(answer.hits) for answer in answers] == [8] * 12
    assert code == 0


def arrived(port: int) -> float:
    """Return how many searches have come, answered or in flight."""
    found = numbers(port)
    answered = found.get('whatwhere_requests_total{code="OK",method="SearchImages"}', 0)
    return answered + found["whatwhere_requests_in_flight"]


def test_a_draining_server_says_so_and_goes_on_answering(collection: Path) -> None:
    """For as long as it was told, so that load balancers notice; then it refuses."""
    with process(collection, "--drain-delay", "2") as (serving, address), Client(address, timeout_s=5) as client:
        serving.send_signal(signal.SIGTERM)
        wait_until(lambda: health_of(address) == "NOT_SERVING")
        answered = client.search("images/1", SearchOptions(page_size=1))
        code = serving.wait(60)
        with pytest.raises(ServerUnreachable):
            client.collection()

    assert len(answered.hits) == 1
    assert code == 0


def test_probes_have_an_address_of_their_own(collection: Path) -> None:
    """It answers the health service, and nothing else."""
    with running(ServerSettings(collection, listen=LOOPBACK, health_listen=LOOPBACK)) as (server, _):
        address = f"127.0.0.1:{server.health_port}"
        status = health_of(address)
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
            rpc.ImageSearchServiceStub(channel).GetCollection(pb.GetCollectionRequest(), timeout=30)

    assert status == "SERVING"
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


# --- broken, and well again -------------------------------------------------------------------------------------


def test_a_network_that_does_not_come_back_is_a_fault(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart would help: not even alive; when it comes back all is well."""
    monkeypatch.setattr(health, "_INTERVAL_S", 0.05)
    monkeypatch.setattr(health, "_STUCK_S", 0.2)
    with running(ServerSettings(collection, listen=LOOPBACK)) as (server, address):
        with busy(server):
            wait_until(lambda: health_of(address) == "NOT_SERVING")
            alive = health_of(address, health.LIVE)
        wait_until(lambda: health_of(address) == "SERVING")

    assert alive == "NOT_SERVING"


def test_failures_in_a_row_are_looked_into(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the network works all the same, it was the pictures: the server goes on serving."""
    monkeypatch.setattr(health, "_INTERVAL_S", 0.05)
    with running(ServerSettings(collection, listen=LOOPBACK)) as (server, address):
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                server._batcher.run(lambda: 1 / 0)
        wait_until(lambda: server._batcher.failures == 0)
        status = health_of(address)

    assert status == "SERVING"


def test_a_catalog_that_cannot_be_read_is_a_fault(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request should come; but a restart would not help, so it is alive."""
    monkeypatch.setattr(health, "_INTERVAL_S", 0.05)
    root = tmp_path / "photographs.ww"
    shutil.copytree(collection, root)
    with running(ServerSettings(root, listen=LOOPBACK)) as (_, address):
        (root / "catalog.db").write_bytes(b"\0" * 8192)
        wait_until(lambda: health_of(address) == "NOT_SERVING")
        alive = health_of(address, health.LIVE)

    assert alive == "SERVING"


# --- load -------------------------------------------------------------------------------------------------------


def crowded(collection: Path) -> ServerSettings:
    """Return settings of a server whose pool for uploads has two threads (one and a batch of one), and one may wait."""
    return ServerSettings(
        collection, listen=LOOPBACK, threads=1, batching=Batching(1), limits=Limits(max_queued_uploads=1)
    )


def test_beyond_the_queue_uploads_are_sent_away_and_searches_are_not(collection: Path) -> None:
    """Three are taken in, the fourth is told when to come back; what needs no network is answered meanwhile."""
    with running(crowded(collection)) as (server, address), Client(address) as client, ThreadPoolExecutor(3) as pool:
        with busy(server):
            taken = [pool.submit(client.search, QUERY_PHOTOGRAPH) for _ in range(3)]
            wait_until(lambda: server._worker_pools.uploads.waiting == 1)
            with pytest.raises(ServerOverloaded) as refused:
                client.search(QUERY_PHOTOGRAPH)
            cheap = client.search("images/1"), list(client.images()), client.collection()
            unanswered = [future.done() for future in taken]
        answers = [future.result(60) for future in taken]

    assert refused.value.retry_delay_s is not None
    assert refused.value.retry_delay_s > 0
    assert len(cheap[0].hits) == 8
    assert unanswered == [False] * 3
    assert [len(answer.hits) for answer in answers] == [8] * 3


@pytest.mark.parametrize(("remembered", "described"), [(256, 2), (0, 4)])
def test_an_upload_that_was_asked_about_is_not_described_again(
    collection: Path, remembered: int, described: int
) -> None:
    """Its second page, a box on it and the same picture of another caller need no network, and are answered alike.

    Another picture does.
    """
    settings = ServerSettings(
        collection, listen=LOOPBACK, metrics_listen=LOOPBACK, remembered_uploads=remembered, refresh_s=0
    )
    box = Box(0.2, 0.1, 0.9, 0.8)
    with running(settings) as (server, address), Client(address) as client, Client(address) as another:
        first = client.search(QUERY_PHOTOGRAPH, SearchOptions(page_size=3))
        second = client.search(QUERY_PHOTOGRAPH, SearchOptions(page_size=3, page_token=first.next_page_token))
        boxed = another.search(QUERY_PHOTOGRAPH, SearchOptions(region=box, localize_count=3))
        client.search(INDEXED_PHOTOGRAPHS[0])
        found = numbers(server.metrics_port)
    forgetful = ServerSettings(collection, listen=LOOPBACK, remembered_uploads=0)
    with running(forgetful) as (_, address), Client(address) as client:
        whole = client.search(QUERY_PHOTOGRAPH, SearchOptions(page_size=6))
        region = client.search(QUERY_PHOTOGRAPH, SearchOptions(region=box, localize_count=3))

    assert found["whatwhere_batch_size_count"] == described
    assert (*first.hits, *second.hits) == whole.hits
    assert boxed.hits == region.hits


def test_a_cropped_upload_is_not_taken_for_the_whole_one(tmp_path: Path) -> None:
    """A baseline describes what is in the box: that the whole picture was described does not help."""
    index_paths(INDEXED_PHOTOGRAPHS, tmp_path / "baseline.ww", IndexSettings(descriptors=("r-mac",)))
    settings = ServerSettings(tmp_path / "baseline.ww", listen=LOOPBACK, metrics_listen=LOOPBACK)
    with running(settings) as (server, address), Client(address) as client:
        whole = client.search(QUERY_PHOTOGRAPH)
        boxed = client.search(QUERY_PHOTOGRAPH, SearchOptions(region=Box(0.0, 0.0, 0.3, 0.3)))
        again = client.search(QUERY_PHOTOGRAPH)
        found = numbers(server.metrics_port)

    assert found["whatwhere_batch_size_count"] == 2
    assert boxed.hits != whole.hits
    assert again.hits == whole.hits


def test_what_nobody_waits_for_is_not_done(collection: Path) -> None:
    """The deadline passes in the queue, and a caller hangs up there: the network describes neither."""
    settings = crowded(collection)
    with running(ServerSettings(**{**vars(settings), "metrics_listen": LOOPBACK})) as (server, address):
        with busy(server):
            with Client(address, timeout_s=0.5) as hasty, pytest.raises(DeadlineExceeded):
                hasty.search(QUERY_PHOTOGRAPH)
            with grpc.insecure_channel(address) as channel:
                request = pb.SearchImagesRequest(image_content=QUERY_PHOTOGRAPH.read_bytes())
                call = rpc.ImageSearchServiceStub(channel).SearchImages.future(request)
                wait_until(lambda: len(server._interceptor.limiter) == 1)
                call.cancel()
            wait_until(lambda: len(server._interceptor.limiter) == 0)
        wait_until(lambda: server._worker_pools.uploads._inside == 0)
        found = numbers(server.metrics_port)

    assert found["whatwhere_batch_size_count"] == 0
    assert found['whatwhere_requests_total{code="DEADLINE_EXCEEDED",method="SearchImages"}'] == 1
    assert found['whatwhere_requests_total{code="CANCELLED",method="SearchImages"}'] == 1


def test_no_request_takes_longer_than_the_most(collection: Path) -> None:
    """Whatever deadline the caller gave, or none."""
    settings = ServerSettings(collection, listen=LOOPBACK, limits=Limits(request_s=0.3))
    with (
        running(settings) as (server, address),
        Client(address) as client,
        busy(server),
        pytest.raises(DeadlineExceeded, match=r"0\.3 s"),
    ):
        client.search(QUERY_PHOTOGRAPH)


# --- what is seen -----------------------------------------------------------------------------------------------


def test_prometheus_sees_requests_stages_and_the_collection(collection: Path) -> None:
    """An upload with a box, a stored search, an error: each is counted where it belongs."""
    with running(ServerSettings(collection, listen=LOOPBACK, metrics_listen=LOOPBACK)) as (server, address):
        with Client(address) as client:
            client.search(QUERY_PHOTOGRAPH, SearchOptions(localize_count=1))
            client.search("images/1")
            with pytest.raises(ImageNotFound):
                client.image("images/99")
        found = numbers(server.metrics_port)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/debug", timeout=30)

    assert found['whatwhere_requests_total{code="OK",method="SearchImages"}'] == 2
    assert found['whatwhere_requests_total{code="NOT_FOUND",method="GetImage"}'] == 1
    assert found['whatwhere_request_seconds_count{method="SearchImages"}'] == 2
    once = ("decode", "activations", "factorise", "localise")
    assert all(found[f'whatwhere_stage_seconds_count{{stage="{stage}"}}'] == 1 for stage in once)
    assert found['whatwhere_stage_seconds_count{stage="search"}'] == 2
    assert found['whatwhere_stage_seconds_count{stage="receive"}'] == 3
    assert (found["whatwhere_batch_size_count"], found["whatwhere_batch_size_sum"]) == (1, 1)
    assert (found["whatwhere_images"], found["whatwhere_generation"], found["whatwhere_latest_generation"]) == (8, 1, 1)
    assert (found["whatwhere_ready"], found["whatwhere_requests_in_flight"]) == (1, 0)
    assert found["process_resident_memory_bytes"] > 1e6


@pytest.mark.parametrize("given", ["mine-42", None, "with space\x1b[31m", "x" * 129])
def test_a_request_id_comes_back(server: str, given: str | None) -> None:
    """The caller's where it is printable, else a new one; with an answer in its head, with an error at its end."""
    sent = None if given is None or not given.isprintable() else (("x-request-id", given),)
    with grpc.insecure_channel(server) as channel:
        stub = rpc.ImageSearchServiceStub(channel)
        _, answered = stub.GetImage.with_call(pb.GetImageRequest(name="images/1"), metadata=sent)
        with pytest.raises(grpc.RpcError) as failed:
            stub.GetImage(pb.GetImageRequest(name="images/99"), metadata=sent)

    ids = [dict(answered.initial_metadata())["x-request-id"], dict(failed.value.trailing_metadata())["x-request-id"]]
    if given == "mine-42":
        assert ids == [given, given]
    else:
        assert all(re.fullmatch("[0-9a-f]{32}", found) for found in ids)


def test_a_request_is_a_line_of_json(collection: Path) -> None:
    """With its method, code, client, times and id; every line of the log is JSON, without a token that was shown."""
    with (
        process(collection, "--log-format", "json") as (serving, address),
        Client(address, token="ww_secret") as client,
    ):
        client.search(QUERY_PHOTOGRAPH)
        with pytest.raises(ImageNotFound):
            client.image("images/99")
        serving.send_signal(signal.SIGTERM)
        _, messages = serving.communicate(timeout=60)

    lines = [json.loads(line) for line in messages.splitlines()]
    answered, failed = (line for line in lines if line["event"] == "request")
    assert (answered["method"], answered["code"], answered["level"]) == ("SearchImages", "OK", "info")
    assert answered["client"] == "address:ipv4:127.0.0.1"
    assert {"ms", "receive_ms", "queue_ms", "decode_ms", "activations_ms", "factorise_ms", "search_ms"} <= set(answered)
    assert (failed["code"], failed["reason"]) == ("NOT_FOUND", "IMAGE_NOT_FOUND")
    assert failed["request_id"] != answered["request_id"]
    assert "ww_secret" not in messages


def test_a_request_is_a_span_with_its_stages(collection: Path) -> None:
    """Under the caller's span, with the times of the request."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    metadata = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)
    with running(ServerSettings(collection, listen=LOOPBACK)) as (server, address):
        server._interceptor.tracer = Tracer(provider)
        with grpc.insecure_channel(address) as channel:
            request = pb.SearchImagesRequest(image="images/1")
            rpc.ImageSearchServiceStub(channel).SearchImages(request, metadata=metadata, timeout=30)
        wait_until(lambda: len(exporter.get_finished_spans()) == 4)
    provider.shutdown()

    *stages, whole = exporter.get_finished_spans()
    assert (whole.name, whole.parent and f"{whole.parent.span_id:016x}") == ("SearchImages", "00f067aa0ba902b7")
    assert [span.name for span in stages] == ["receive", "queue", "search"]
    for span in stages:
        assert span.parent is not None
        assert span.parent.span_id == whole.context.span_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time
