"""The web side's tables and judgments, without a server."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from starlette.requests import Request

from whatwhere.indexer import errors
from whatwhere.service.api.gateway import Gateway
from whatwhere.service.api.status import STATUS_CODES, to_status
from whatwhere.service.rpc import image_search_pb2 as pb
from whatwhere.service.web import files
from whatwhere.service.web.calls import Caller, Sender
from whatwhere.service.web.guard import Hosts
from whatwhere.service.web.statuses import HTTP_STATUSES, Refusal, failed, http_status
from whatwhere.service.web.transcoding import METHODS, HttpMethod, from_json, from_parameters, to_json

SEARCH, LIST, GET = (
    next(method for method in METHODS if method.name == name) for name in ("SearchImages", "ListImages", "GetImage")
)


def nobody() -> tuple[str, ...]:
    return ()


# --- statuses ---------------------------------------------------------------------------------------------------


def test_every_code_has_an_http_status() -> None:
    """Google's own, from the comments of google/rpc/code.proto; CANCELLED is a client that closed its request."""
    assert {code.name: HTTP_STATUSES[code] for code in grpc.StatusCode} == {
        "OK": 200,
        "CANCELLED": 499,
        "UNKNOWN": 500,
        "INVALID_ARGUMENT": 400,
        "DEADLINE_EXCEEDED": 504,
        "NOT_FOUND": 404,
        "ALREADY_EXISTS": 409,
        "PERMISSION_DENIED": 403,
        "UNAUTHENTICATED": 401,
        "RESOURCE_EXHAUSTED": 429,
        "FAILED_PRECONDITION": 400,
        "ABORTED": 409,
        "OUT_OF_RANGE": 400,
        "UNIMPLEMENTED": 501,
        "INTERNAL": 500,
        "UNAVAILABLE": 503,
        "DATA_LOSS": 500,
    }


def test_an_error_has_its_codes_status_but_for_three() -> None:
    """Those that HTTP has a status of its own for."""
    own = {errors.ImageTooManyBytes: 413, errors.RequestTooSlow: 408, errors.CallMetadataTooLarge: 431}
    of_codes = {kind: HTTP_STATUSES[code] for kind, code in STATUS_CODES.items()}

    assert {kind: http_status(to_status(kind("x"), "id")) for kind in STATUS_CODES} == of_codes | own


def test_an_error_is_the_json_of_its_status() -> None:
    """With all details by their types, and when to come back in HTTP's words, too: never at once."""
    response = failed(errors.TooManyRequests("wait", field="x", retry_delay_s=1.2), "id-1")

    assert response.status_code == 429
    assert response.headers["retry-after"] == "2"
    assert json.loads(bytes(response.body)) == {
        "error": {
            "code": 429,
            "status": "RESOURCE_EXHAUSTED",
            "message": "wait",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "TOO_MANY_REQUESTS",
                    "domain": "whatwhere",
                    "metadata": {"request_id": "id-1"},
                },
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"field": "x", "description": "wait"}],
                },
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.200s"},
            ],
        }
    }


def test_what_nobody_foresaw_says_nothing() -> None:
    """But the request id."""
    response = failed(ZeroDivisionError("/home/secret"), "id-1")

    assert response.status_code == 500
    assert b"secret" not in response.body
    assert b"id-1" in response.body


def test_a_missing_token_is_asked_for_in_https_words() -> None:
    """As RFC 9110 wants of every 401; and no error is kept by a cache."""
    response = failed(errors.Unauthenticated("who are you?"), "id-1")
    other = Refusal(404, grpc.StatusCode.UNIMPLEMENTED, "NO_SUCH_PATH", "nothing").answer("id-1")

    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert "www-authenticate" not in other.headers
    assert response.headers["cache-control"] == other.headers["cache-control"] == "no-store"


# --- JSON -------------------------------------------------------------------------------------------------------


def test_every_method_of_the_service_has_a_path() -> None:
    """And none has two."""
    service = pb.DESCRIPTOR.services_by_name["ImageSearchService"]

    assert sorted(method.name for method in METHODS) == sorted(service.methods_by_name)
    assert len({(method.verb, method.path) for method in METHODS}) == len(METHODS)


def test_json_becomes_the_message() -> None:
    """Names in camel case, bytes in base64, an enumeration by its name."""
    body = bytearray(
        b' {"imageContent": "AQID", "descriptor": "DESCRIPTOR_WHAT", "region": {"xMax": 0.5, "yMax": 1}, "minScore": 0}'
    )

    message = pb.SearchImagesRequest.FromString(from_json(SEARCH, body))

    assert message == pb.SearchImagesRequest(
        image_content=b"\1\2\3", descriptor=pb.DESCRIPTOR_WHAT, region=pb.Box(x_max=0.5, y_max=1), min_score=0
    )
    assert message.HasField("min_score")


def test_a_response_becomes_json() -> None:
    """What stands at its default is left out."""
    response = pb.ListImagesResponse(images=[pb.Image(name="images/1", byte_count=5, width_px=3)])

    assert json.loads(to_json(LIST, response.SerializeToString())) == {
        "images": [{"name": "images/1", "byteCount": "5", "widthPx": 3}]
    }


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b"", None, "not a JSON object"),
        (b"null", None, "not a JSON object"),
        (b"[{}]", None, "not a JSON object"),
        (b"{", None, "JSON"),
        (b'{"a\xff": 1}', None, "JSON"),
        (b'{"colour": 1}', "colour", "colour"),
        (b'{"region": {"left": 1}}', "region.left", "left"),
        (b'{"pageSize": "ten"}', "page_size", "ten"),
        (b'{"pageSize": 1.5}', "page_size", "integer"),
        (b'{"pageSize": 99999999999}', "page_size", "range"),
        (b'{"region": {"xMin": "left"}}', "region.x_min", "left"),
        (b'{"descriptor": "DESCRIPTOR_BEST"}', "descriptor", "DESCRIPTOR_BEST"),
        (b'{"imageContent": 5}', "image_content", "imageContent"),
        (b'{"filter": "\\ud800"}', "filter", "filter"),
        (b'{"image": "images/1", "imageContent": "AQID"}', None, "query"),
        (b'{"image": "images/1", "image": "images/2"}', None, "duplicate"),
        (b'{"minScore": 1e999}', None, "too large"),
        (b'{"pageSize": ' + b"1" * 5000 + b"}", None, "digits"),
        (b'{"region": ' * 3000, None, "JSON"),
        (b'{"region": ' * 3000 + b"{" + b"}" * 3001, None, "JSON"),
        (b'{"moreRegions": [' + b"{}," * 30_000 + b"{}]}", None, "20,000 values"),
        (b'{"filter": "' + b"\\" * 99_999 + b'"}', None, "JSON"),
    ],
)
def test_json_that_is_no_message_is_refused(body: bytes, field: str | None, words: str) -> None:
    """By the field at fault, where there is one, and in few words, however much was sent."""
    with pytest.raises(errors.InvalidRequest, match=words) as refused:
        from_json(SEARCH, bytearray(body))

    assert refused.value.field == field
    assert len(str(refused.value)) < 500


def test_parameters_become_the_message() -> None:
    """Those of the query, and the image of the path."""
    listed = from_parameters(LIST, None, [("pageSize", "5"), ("filter", 'a = "ü"'), ("pageToken", "")])
    got = from_parameters(GET, "17", [])

    assert pb.ListImagesRequest.FromString(listed) == pb.ListImagesRequest(page_size=5, filter='a = "ü"')
    assert pb.GetImageRequest.FromString(got) == pb.GetImageRequest(name="images/17")


@pytest.mark.parametrize(
    ("method", "image_id", "parameters", "field"),
    [
        (LIST, None, [("size", "5")], "size"),
        (LIST, None, [("pageSize", "five")], "page_size"),
        (LIST, None, [("pageSize", "5"), ("pageSize", "6")], None),
        (GET, "1", [("name", "images/2")], "name"),
    ],
)
def test_parameters_that_are_no_message_are_refused(
    method: HttpMethod, image_id: str | None, parameters: list[tuple[str, str]], field: str | None
) -> None:
    """One that is unknown, of another type, there twice, or said by the path already."""
    with pytest.raises(errors.InvalidRequest) as refused:
        from_parameters(method, image_id, parameters)

    assert refused.value.field == field


def test_fields_of_json_can_be_said_in_proto_names_too() -> None:
    """As protobuf's JSON form has it."""
    message = pb.ListImagesRequest.FromString(from_json(LIST, bytearray(b'{"page_size": 5}')))

    assert json_format.MessageToDict(message) == {"pageSize": 5}


# --- whom it believes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LocalHost:1", "localhost.", "[::1]:80"])
def test_this_machine_is_known_on_loopback(name: str) -> None:
    """By all its names, at any port: it may be another's that leads here."""
    assert Hosts("127.0.0.1:8080", (), nobody).know(name)


@pytest.mark.parametrize(
    "name",
    [
        "evil.org",
        "evil.org:8080",
        "10.0.0.1",
        "localhost.evil.org",
        "127.0.0.1.evil.org",
        "",
        ":80",
        "[",
        "a@localhost",
    ],
)
def test_other_names_are_not_known(name: str) -> None:
    """A page of evil.org whose name leads here says its own name."""
    assert not Hosts("127.0.0.1:8080", (), nobody).know(name)


@pytest.mark.parametrize(
    ("name", "known"),
    [("find.org", True), ("FIND.org:443", True), ("10.0.0.1:80", True), ("[fe80::1]", True), ("evil.org", False)],
)
def test_told_names_and_any_number_are_known_on_all_addresses(name: str, known: bool) -> None:
    """A number is nobody's to lead elsewhere."""
    assert Hosts("0.0.0.0:8080", ("Find.org",), nobody).know(name) is known


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("192.0.2.7", True),
        ("find.org", True),
        ("www.find.org", True),
        ("a.b.find.org", False),
        ("find.org.evil.org", False),
        ("localhost", False),
    ],
)
def test_the_certificates_names_are_known(name: str, known: bool) -> None:
    """A star is one label."""
    hosts = Hosts("192.0.2.7:443", (), lambda: ("find.org", "*.find.org"))

    assert hosts.know(name) is known


def test_only_who_has_the_key_may_name_a_caller() -> None:
    """Another process's key is another."""
    ours, others = Gateway(), Gateway()
    _, told = ours.named("address:ipv4:192.0.2.1 ü")

    assert ours.client(told) == "address:ipv4:192.0.2.1 ü"
    assert others.client(told) is None
    assert ours.client(b"") is None
    assert ours.client(b"\0" * 32 + b"me") is None


def test_a_refusal_is_taken_once() -> None:
    """And no message is ever one."""
    gateway, error = Gateway(), errors.InvalidRequest("no")
    message = gateway.refuse(error)

    assert gateway.take(pb.SearchImagesRequest(image="images/1").SerializeToString()) is None
    assert gateway.take(b"") is None
    assert gateway.take(message) is error
    assert gateway.take(message) is None


# --- calls --------------------------------------------------------------------------------------------------------


async def called(address: str) -> bytes:
    """Call a server that cancels every call."""

    async def cancelled(_: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.CANCELLED, "")
        return b""

    async def message() -> bytes:
        return b""

    async def stay() -> None:
        await asyncio.sleep(60)

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(cancelled)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("any.Service", {"Method": handler}),))
    server.add_insecure_port(address)
    await server.start()
    caller = Caller(address, Gateway())
    try:
        return await caller.call("/any.Service/Method", [], Sender(message, stay))
    finally:
        await caller.close()
        await server.stop(None)


def test_a_call_that_the_server_cancels_is_not_the_callers_end(tmp_path: Path) -> None:
    """It is an error as others are: whoever asks over HTTP has not gone."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        asyncio.run(called(f"unix:{tmp_path / 's'}"))

    response = failed(failure.value, "id-1")
    assert response.status_code == 503
    assert b"SERVER_NOT_READY" in response.body


# --- files ------------------------------------------------------------------------------------------------------


def request(**headers: str) -> Request:
    raw: list[Any] = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


@pytest.mark.parametrize(
    ("known", "same"),
    [('W/"a"', True), ('"a"', True), ('"b", W/"a"', True), ("*", True), ('"b"', False), ("a", False), ("", False)],
)
def test_what_has_not_changed_is_not_sent_again(known: str, same: bool) -> None:
    """By weak comparison: compressed or not."""
    assert files.matches(request(if_none_match=known), 'W/"a"') is same


def test_the_etag_is_the_contents() -> None:
    """Other content, another tag."""
    assert files.weak_etag(b"a") == files.weak_etag(b"a") != files.weak_etag(b"b")
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', files.weak_etag(b"a"))


def test_files_of_the_page_are_those_of_its_folder(tmp_path: Path) -> None:
    """By name, with their media types; folders are none; a package without a page has none."""
    (tmp_path / "folder").mkdir(parents=True)
    (tmp_path / "app.js").write_text("1")
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "what.unheard-of").write_text("?")

    found = files.page_files(tmp_path)

    assert files.page_files(tmp_path / "absent") == {}
    assert {name: file.media_type for name, file in found.items()} == {
        "app.js": "text/javascript",
        "index.html": "text/html",
        "what.unheard-of": "application/octet-stream",
    }
    assert found["app.js"].content == b"1"
