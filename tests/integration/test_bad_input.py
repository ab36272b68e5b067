"""Whatever a caller sends, the error has a name, a remedy and the right status, and the next request is served."""

import dataclasses
import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from whatwhere.indexer import errors
from whatwhere.indexer.catalog.records import Outcome, Source
from whatwhere.indexer.collection.layout import Current, Layout
from whatwhere.indexer.collection.manifest import Manifest
from whatwhere.indexer.collection.writer import open_for_writing
from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.service.client.client import Client
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.rpc import image_search_pb2_grpc as rpc
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.server import create_server
from whatwhere.service.settings import Limits, ServerSettings

MAX_BYTES, MAX_PIXELS = 200_000, 500_000


@pytest.fixture(scope="module")
def strict_server(collection: Path) -> Iterator[str]:
    """Give a server with small limits."""
    limits = Limits(image=ImageLimits(max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS))
    serving, port = create_server(ServerSettings(collection, listen="127.0.0.1:0", limits=limits))
    serving.start()
    yield f"127.0.0.1:{port}"
    serving.stop(grace=None)


def encoded(width: int, height: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def solid(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")  # a bit a pixel: quickly made
    return buffer.getvalue()


SMALL = encoded(64, 64, "JPEG")
IMAGE = {"image": "images/1"}
CASES: list[tuple[dict[str, object], str, grpc.StatusCode, str]] = [
    ({}, "MISSING_QUERY", grpc.StatusCode.INVALID_ARGUMENT, "image_content"),
    ({"image_content": b""}, "MISSING_QUERY", grpc.StatusCode.INVALID_ARGUMENT, "image_content"),
    ({"image_content": b"not a picture"}, "UNREADABLE_IMAGE", grpc.StatusCode.INVALID_ARGUMENT, "a text file"),
    ({"image_content": SMALL[: len(SMALL) // 2]}, "UNREADABLE_IMAGE", grpc.StatusCode.INVALID_ARGUMENT, "complete"),
    ({"image_content": b"\0" * (MAX_BYTES + 1)}, "IMAGE_TOO_MANY_BYTES", grpc.StatusCode.INVALID_ARGUMENT, "200,000"),
    ({"image_content": solid(1000, 501)}, "IMAGE_TOO_MANY_PIXELS", grpc.StatusCode.INVALID_ARGUMENT, "1000 x 501"),
    ({"image_content": solid(13500, 13500)}, "IMAGE_TOO_MANY_PIXELS", grpc.StatusCode.INVALID_ARGUMENT, "500,000"),
    (
        IMAGE | {"region": pb.Box(x_min=0.9, x_max=0.1, y_max=1)},
        "INVALID_REGION",
        grpc.StatusCode.INVALID_ARGUMENT,
        "0.9",
    ),
    (IMAGE | {"region": pb.Box()}, "INVALID_REGION", grpc.StatusCode.INVALID_ARGUMENT, "less than"),
    (IMAGE | {"region": pb.Box(x_max=2, y_max=1)}, "INVALID_REGION", grpc.StatusCode.INVALID_ARGUMENT, "2.0"),
    (
        IMAGE | {"region": pb.Box(x_max=float("nan"), y_max=1)},
        "INVALID_REGION",
        grpc.StatusCode.INVALID_ARGUMENT,
        "nan",
    ),
    ({"image": "images/999999"}, "IMAGE_NOT_FOUND", grpc.StatusCode.NOT_FOUND, "images/999999"),
    ({"image": "../../etc/passwd"}, "INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, "images/12"),
    (IMAGE | {"page_size": -1}, "INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, "page_size"),
    (IMAGE | {"expansion_count": -1}, "INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, "expansion_count"),
    (IMAGE | {"localize_count": 1000}, "INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, "localize_count"),
    (IMAGE | {"min_score": float("nan")}, "INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, "min_score"),
    (IMAGE | {"page_token": "made-up"}, "INVALID_PAGE_TOKEN", grpc.StatusCode.INVALID_ARGUMENT, "first page"),
    (IMAGE | {"descriptor": pb.DESCRIPTOR_GEM}, "DESCRIPTOR_NOT_INDEXED", grpc.StatusCode.FAILED_PRECONDITION, "gem"),
    (
        IMAGE | {"descriptor": pb.DESCRIPTOR_R_MAC, "region": pb.Box(x_max=0.5, y_max=0.5)},
        "REGION_NOT_SUPPORTED",
        grpc.StatusCode.FAILED_PRECONDITION,
        "what",
    ),
]


@pytest.mark.parametrize(
    ("request_", "reason", "code", "words"), CASES, ids=[f"{n}-{c[1]}" for n, c in enumerate(CASES)]
)
def test_a_bad_search_is_named_and_the_next_one_served(
    strict_server: str, request_: dict[str, object], reason: str, code: grpc.StatusCode, words: str
) -> None:
    """One status, one ErrorInfo, a message with the value or the remedy, and a server as before."""
    with grpc.insecure_channel(strict_server) as channel:
        stub = rpc.ImageSearchServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as raised:
            stub.SearchImages(pb.SearchImagesRequest(**request_))
        after = stub.SearchImages(pb.SearchImagesRequest(image="images/1"))

    status = rpc_status.from_call(raised.value)
    found = [
        error_details_pb2.ErrorInfo.FromString(packed.value)
        for packed in status.details
        if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    ]
    assert [info.reason for info in found] == [reason]
    assert raised.value.code() == code
    assert words in raised.value.details()
    assert len(after.hits) == 8


@pytest.mark.parametrize("name", ["", "images/x", "images/1.5"])
def test_a_bad_name_of_an_image_is_refused(server: str, name: str) -> None:
    """GetImage takes names and nothing else."""
    with Client(server) as client, pytest.raises(errors.InvalidRequest):
        client.image(name)


def test_a_token_of_the_listing_is_foreign_to_a_search(server: str) -> None:
    """Tokens belong to their method."""
    with grpc.insecure_channel(server) as channel:
        stub = rpc.ImageSearchServiceStub(channel)  # type: ignore[no-untyped-call]
        token = stub.ListImages(pb.ListImagesRequest(page_size=2)).next_page_token

    with Client(server) as client, pytest.raises(errors.InvalidPageToken):
        client.search("images/1", SearchOptions(page_token=token))


def test_a_message_far_beyond_the_limit_is_an_image_too_large(strict_server: str) -> None:
    """What gRPC itself refuses reaches the client under the same name."""
    with Client(strict_server) as client, pytest.raises(errors.ImageTooManyBytes):
        client.search(b"\0" * (MAX_BYTES + 2 * 1024 * 1024))


def test_a_server_that_is_not_there_is_named() -> None:
    """The client says what to look at."""
    with Client("127.0.0.1:1", timeout_s=2) as client, pytest.raises(errors.ServerUnreachable, match="whatwhere serve"):
        client.collection()


def test_exact_localization_without_the_file_says_so(collection: Path, tmp_path: Path) -> None:
    """The result's file has gone: the remedy is stored localisation, which still works."""
    moved = copy_of(collection, tmp_path)
    # the files themselves are needed by other tests
    with open_for_writing(moved) as writer:
        for image in writer.catalog.images():
            (uri,) = image.uris
            outcome = Outcome(Source(f"{uri}.gone", 1, 1), known_hash=image.content_hash)
            writer.append([outcome], [])
            writer.catalog.forget_sources([uri])
    serving, port = create_server(ServerSettings(moved, listen="127.0.0.1:0"))
    serving.start()

    with Client(f"127.0.0.1:{port}") as client:
        with pytest.raises(errors.SourceUnavailable, match="stored"):
            client.search("images/1", SearchOptions(localize_count=2, exact=True))
        assert client.search("images/1", SearchOptions(localize_count=2)).hits[0].box is not None
    serving.stop(grace=None)


def copy_of(collection: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(collection, tmp_path / "copy.ww"))


def test_a_collection_made_with_other_weights_is_refused(collection: Path, tmp_path: Path) -> None:
    """A server never answers with another network than the index was made with."""
    layout = Layout(copy_of(collection, tmp_path))
    manifest = Manifest.live(layout)
    assert manifest is not None
    other = replace(manifest, recipe=replace(manifest.recipe, weights_sha256="0" * 64))
    other.recipe.save(layout)
    layout.write_current(Current(1, other.save(layout.generation(1))))

    with pytest.raises(errors.CollectionMismatch, match="weights"):
        create_server(ServerSettings(layout.root, listen="127.0.0.1:0"))


@pytest.mark.parametrize("listen", ["256.0.0.1:50051", "nowhere", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(collection: Path, listen: str) -> None:
    """The error names the address."""
    with pytest.raises(errors.InvalidRequest, match=listen.partition(":")[0]):
        create_server(ServerSettings(collection, listen=listen))


def test_a_port_that_is_taken_is_refused(collection: Path, server: str) -> None:
    """A second server on one port is an error, not half of the traffic."""
    with pytest.raises(errors.InvalidRequest, match=server):
        create_server(dataclasses.replace(ServerSettings(collection), listen=server))
