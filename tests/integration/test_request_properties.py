"""Whatever stands in a request, the answer is one of the contract, and tells nothing of the server's insides."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from whatwhere.service.rpc import image_search_pb2 as pb

EXAMPLES = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FEW = settings(EXAMPLES, max_examples=40)  # a search has fifteen fields, the others have one to six
TIMEOUT_S = 60.0
ANSWERS = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
INSIDES = (b"/tmp/", b"/work", b"/home", b".py", b"Traceback", b"site-packages", b"sqlite", b"object at 0x")
REQUESTS: dict[str, type[Message]] = {
    "SearchImages": pb.SearchImagesRequest,
    "GetImage": pb.GetImageRequest,
    "ListImages": pb.ListImagesRequest,
    "SampleImages": pb.SampleImagesRequest,
    "GetImageContent": pb.GetImageContentRequest,
    "ExplainImage": pb.ExplainImageRequest,
    "CompareImages": pb.CompareImagesRequest,
}
Call = Callable[[str, bytes], tuple[grpc.StatusCode, list[str], bytes]]


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 32)).save(buffer, kind)
    return buffer.getvalue()


# --- values of fields -------------------------------------------------------------------------------------------

SMALL_PNG = encoded("PNG")
NAMES = [
    *("images/1", "images/8", "images/0", "images/01", "images/-1", "images/999999999999999999", "images/" + "9" * 19),
    *(
        "images/1\n",
        "images/1\0",
        " images/1",
        "Images/1",
        "images/١",
        "images/1/..",
        "images/1%00",
        "images//1",
        "images",
    ),
]
FILTERS = [
    *('label = "boat"', "width_px > 1", 'uri:"*.png"', "NOT width_px > 1", "a = 1e999", "create_time > 0001-01-01"),
    *("byte_count = 99999999999999999999999", "metadata.a.b.c = true", "width_px = x", "sha256:*", "mime_type = '%'"),
    *("(" * 40, "a = 1 " * 200, "a.b.c.d.e.f.g = 1", "'\u202e' = 1", 'a = "\\', 'uri = "\'; drop table images; --"'),
]
LONG = st.builds(lambda piece, times: piece * times, st.text(min_size=1, max_size=4), st.sampled_from([1_000, 100_000]))
TEXTS = st.one_of(st.sampled_from([*NAMES, *FILTERS, ""]), st.sampled_from(NAMES[:2]), st.text(max_size=60), LONG)
PICTURES = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda end: SMALL_PNG[:end], st.integers(0, len(SMALL_PNG) - 1)),
    st.builds(lambda tail: SMALL_PNG[:60] + tail, st.binary(max_size=100)),
    st.builds(lambda size: b"\0" * size, st.sampled_from([0, 1_000_000])),
)
INTEGERS = st.one_of(st.integers(-2, 25), st.integers(-(2**31), 2**31 - 1), st.sampled_from([-(2**31), 2**31 - 1]))
NUMBERS = st.one_of(st.floats(0, 1, width=32), st.floats(width=32))
OF_TYPE: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: TEXTS,
    FieldDescriptor.TYPE_BYTES: PICTURES,
    FieldDescriptor.TYPE_INT32: INTEGERS,
    FieldDescriptor.TYPE_ENUM: st.one_of(st.integers(0, 7), INTEGERS),
    FieldDescriptor.TYPE_FLOAT: NUMBERS,
    FieldDescriptor.TYPE_DOUBLE: st.one_of(NUMBERS, st.floats()),
}


def requests(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Give requests with any fields set to any values; a field that is new is covered when its type is."""
    fields = {field.name: _values(field) for field in kind.DESCRIPTOR.fields}
    whole = kind.DESCRIPTOR.name == "Box"  # a box without all its sides is seldom more than refused
    chosen = st.fixed_dictionaries(fields) if whole else st.fixed_dictionaries({}, optional=fields)
    return chosen.map(lambda values: kind(**values))


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    one = requests(pb.Box) if field.type == FieldDescriptor.TYPE_MESSAGE else OF_TYPE[field.type]
    return st.one_of(st.lists(one, max_size=3), st.lists(one, max_size=20)) if field.is_repeated else one


# More than the fields: such that are unknown (a number, a text, a group that does not end), or anything.
TAILS = st.one_of(
    st.just(b""),
    st.sampled_from(
        [b"\xc0\x3e\x01", b"\xc2\x3e\x03abc", b"\xc3\x3e", b"\x00", b"\xff" * 11, b"\x0a\xff\xff\xff\xff\x07"]
    ),
    st.binary(max_size=20),
)


# --- asking -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def call(server: str) -> Iterator[Call]:
    """Give what sends the bytes of a request; returns code, reasons, and all that a status says."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server, options) as channel:

        def called(method: str, content: bytes) -> tuple[grpc.StatusCode, list[str], bytes]:
            ask = channel.unary_unary(f"/whatwhere.v1.ImageSearchService/{method}")
            try:
                return grpc.StatusCode.OK, [], ask(content, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                status = rpc_status.from_call(error)
                return error.code(), _reasons(status), b"" if status is None else status.SerializeToString()

        yield called


def _reasons(status: Any) -> list[str]:
    if status is None:
        return []
    found = [error_details_pb2.ErrorInfo() for _ in status.details]
    return [info.reason for info, packed in zip(found, status.details, strict=True) if packed.Unpack(info)]


def problems(code: grpc.StatusCode, reasons: list[str], said: bytes) -> list[str]:
    """Return in what an answer is none of the contract."""
    found = [] if code in ANSWERS else [f"{code.name}: {said!r}"]
    if code != grpc.StatusCode.OK:
        found += [] if len(reasons) == 1 and reasons[0] else [f"{code.name} with reasons {reasons}"]
        found += [f"{inside!r} in {said!r}" for inside in INSIDES if inside in said]
    return found


@pytest.mark.parametrize("method", REQUESTS)
def test_any_value_of_any_field_gets_an_answer_of_the_contract(call: Call, method: str) -> None:
    """Extreme numbers, NaN, any text, unknown enum values and unknown fields are served, or refused by name."""

    @(EXAMPLES if method == "SearchImages" else FEW)
    @given(requests(REQUESTS[method]), TAILS)
    def holds(request: Message, tail: bytes) -> None:
        answer = call(method, request.SerializeToString() + tail)

        assert problems(*answer) == []

    holds()


@pytest.mark.parametrize("method", REQUESTS)
def test_any_bytes_get_an_answer_of_the_contract(call: Call, method: str) -> None:
    """What is no message at all is refused by name."""

    @(EXAMPLES if method == "SearchImages" else FEW)
    @given(st.one_of(st.binary(max_size=400), _damaged(method)))
    def holds(content: bytes) -> None:
        answer = call(method, content)

        assert problems(*answer) == []

    holds()


def _damaged(method: str) -> st.SearchStrategy[bytes]:
    """Give requests of which a byte is another one."""
    return st.builds(
        lambda request, place, byte: _replaced(request.SerializeToString(), place, byte),
        requests(REQUESTS[method]),
        st.integers(0, 200),
        st.integers(0, 255),
    )


def _replaced(content: bytes, place: int, byte: int) -> bytes:
    return content[:place] + bytes([byte]) + content[place + 1 :]


def test_a_picture_may_come_with_any_options(call: Call) -> None:
    """The same, where the network is asked: fewer examples, as each takes long."""

    @settings(EXAMPLES, max_examples=20)
    @given(requests(pb.SearchImagesRequest))
    def holds(request: Message) -> None:
        request.image_content = SMALL_PNG  # type: ignore[attr-defined]
        answer = call("SearchImages", request.SerializeToString())

        assert problems(*answer) == []

    holds()


# --- names and URIs of files ------------------------------------------------------------------------------------

FILES = [
    *(
        "../../etc/passwd",
        "images/../1",
        "images/../../etc/passwd",
        "/etc/passwd",
        "images/1/../2",
    ),
    *(
        "images/%2e%2e/1",
        "images\\1",
        "\\\\host\\share",
        "images/file:///etc/passwd",
        "/proc/self/environ",
        "~/.ssh/id",
    ),
]


def named(call: Call, name: str) -> list[tuple[grpc.StatusCode, list[str]]]:
    """Return the codes and reasons of requests with a name, wherever one is taken."""
    answers = [
        call("GetImage", pb.GetImageRequest(name=name).SerializeToString()),
        call("SearchImages", pb.SearchImagesRequest(image=name).SerializeToString()),
        call("ExplainImage", pb.ExplainImageRequest(image=name).SerializeToString()),
        call("CompareImages", pb.CompareImagesRequest(image=name, images=["images/1"]).SerializeToString()),
        call("CompareImages", pb.CompareImagesRequest(image="images/1", images=[name]).SerializeToString()),
        call("GetImageContent", pb.GetImageContentRequest(name=name).SerializeToString()),
    ]
    return [(code, reasons) for code, reasons, _ in answers]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_no_name_of_an_image(call: Call, name: str) -> None:
    """Only images/{number} is one, wherever a name is taken."""
    assert named(call, name) == [(grpc.StatusCode.INVALID_ARGUMENT, ["INVALID_FIELD"])] * 6


def test_a_uri_is_looked_up_and_not_read(call: Call, tmp_path: Path) -> None:
    """No image is there; a pipe that nobody writes into would keep whoever opened it."""
    os.mkfifo(tmp_path / "trap")

    for uri in ("file:///etc/passwd", (tmp_path / "trap").as_uri()):
        found = named(call, uri)
        assert found == [(grpc.StatusCode.NOT_FOUND, ["IMAGE_NOT_FOUND"])] * 6


def test_a_uri_in_a_filter_is_compared_and_not_read(call: Call, tmp_path: Path) -> None:
    """It finds no image; a pipe that nobody writes into would keep whoever opened it."""
    trap = tmp_path / "trap"
    os.mkfifo(trap)
    matching = [f'uri = "{uri}"' for uri in ("file:///etc/passwd", trap.as_uri(), str(trap), f"{trap.as_uri()}*")]

    listed = [call("ListImages", pb.ListImagesRequest(filter=text).SerializeToString()) for text in matching]
    asked = [
        pb.SearchImagesRequest(image="images/1", filter=text, localize_count=5, localization=pb.LOCALIZATION_EXACT)
        for text in matching
    ]
    searched = [call("SearchImages", request.SerializeToString()) for request in asked]

    assert [code for code, _, _ in (*listed, *searched)] == [grpc.StatusCode.OK] * 8
    assert not any(pb.ListImagesResponse.FromString(content).images for _, _, content in listed)
    assert not any(pb.SearchImagesResponse.FromString(content).hits for _, _, content in searched)
    with pytest.raises(OSError, match="No such device"):  # which is to say that there is no reader
        os.open(trap, os.O_WRONLY | os.O_NONBLOCK)
