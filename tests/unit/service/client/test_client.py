"""The client against a small real server that answers as it is told."""

import logging
import threading
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from opentelemetry import baggage
from opentelemetry.sdk.trace import TracerProvider

from tests.scripted_server import Answer, ScriptedServer, refusing, serving, well
from whatwhere.indexer import errors
from whatwhere.service.client.client import Client

TOKEN = "a-token-nobody-may-see"


def naming(code: grpc.StatusCode, *details: Any) -> Answer:
    """End the call with a status that carries details."""
    status = status_pb2.Status(code=code.value[0], message="the server's words")
    for detail in details:
        packed = PackedAny()
        packed.Pack(detail)
        status.details.append(packed)
    return lambda context: context.abort_with_status(rpc_status.to_status(status))


def reason(name: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=name, domain="whatwhere")


def retry_after(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromTimedelta(timedelta(seconds=seconds))
    return info


def failure(told: ScriptedServer, *options: tuple[str, int], **arguments: Any) -> errors.WhatwhereError:
    """Return the error that a call of the server ends with."""
    with (
        serving(told, *options) as address,
        Client(address, **arguments) as client,
        pytest.raises(errors.WhatwhereError) as caught,
    ):
        client.collection()
    return caught.value


# --- retries and deadlines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture_bytes", [10, 2_000_000])
def test_an_unavailable_server_is_asked_again(picture_bytes: int) -> None:
    """Twice refused and then answered: the caller sees the answer, for pictures above gRPC's own 256 KiB too."""
    unavailable = refusing(grpc.StatusCode.UNAVAILABLE)
    told = ScriptedServer(unavailable, unavailable, well)

    with serving(told, ("grpc.max_receive_message_length", -1)) as address, Client(address) as client:
        result = client.search(bytes(picture_bytes))

    assert result.kept_factor_count == 5
    assert len(told.calls) == 3


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INTERNAL", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "ABORTED"])
def test_no_other_refusal_is_asked_again(code: str) -> None:
    """An overloaded server gets no second call for the first."""
    told = ScriptedServer(refusing(grpc.StatusCode[code]), well)

    failure(told)

    assert len(told.calls) == 1


def test_a_server_that_stays_unavailable_is_given_up() -> None:
    """Five attempts, then the error."""
    told = ScriptedServer(refusing(grpc.StatusCode.UNAVAILABLE))

    error = failure(told)

    assert type(error) is errors.ServerUnreachable
    assert len(told.calls) == 5


def test_retries_end_with_the_timeout() -> None:
    """The time is that of all attempts together."""
    told = ScriptedServer(refusing(grpc.StatusCode.UNAVAILABLE))

    error = failure(told, timeout_s=0.05)

    assert isinstance(error, errors.DeadlineExceeded | errors.ServerUnreachable)
    assert len(told.calls) < 4


def test_an_answer_that_does_not_come_names_the_timeout() -> None:
    """The error says how long was waited, and what to do."""
    told = ScriptedServer(_wait_for_the_end)

    error = failure(told, timeout_s=0.2)

    assert type(error) is errors.DeadlineExceeded
    assert "0.2 s" in str(error)
    assert "longer timeout" in str(error)


def _wait_for_the_end(context: grpc.ServicerContext) -> None:
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(10)


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    """Its head had come, after which gRPC itself does not try again; once, and then the error."""
    broken, hopeless = ScriptedServer(_break_off, well), ScriptedServer(_break_off)

    with serving(broken) as address, Client(address) as client:
        answered = client.collection()
    error = failure(hopeless)

    assert answered.generation == 3
    assert len(broken.calls) == 2
    assert type(error) is errors.ServerUnreachable
    assert len(hopeless.calls) == 2


def _break_off(context: grpc.ServicerContext) -> None:
    context.send_initial_metadata((("x-request-id", "1"),))
    context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("UNAUTHENTICATED", errors.Unauthenticated),
        ("PERMISSION_DENIED", errors.ScopeMissing),
        ("RESOURCE_EXHAUSTED", errors.ServerOverloaded),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        ("CANCELLED", errors.RequestCancelled),
        ("INTERNAL", errors.WhatwhereError),
    ],
)
def test_a_bare_code_stands_for_an_error(code: str, kind: type[errors.WhatwhereError]) -> None:
    """What a proxy or gRPC itself refuses has a name too."""
    assert type(failure(ScriptedServer(refusing(grpc.StatusCode[code])))) is kind


def test_a_named_reason_is_that_error_with_its_field() -> None:
    """The reason decides, the message is the server's, the field that of the violation."""
    violation = error_details_pb2.BadRequest.FieldViolation(field="region", description="no")
    details = (reason("INVALID_REGION"), error_details_pb2.BadRequest(field_violations=[violation]))

    error = failure(ScriptedServer(naming(grpc.StatusCode.INVALID_ARGUMENT, *details)))

    assert type(error) is errors.InvalidRegion
    assert str(error) == "the server's words"
    assert error.field == "region"


@pytest.mark.parametrize("name", ["SERVER_OVERLOADED", "TOO_MANY_REQUESTS", "OF_A_LATER_VERSION"])
def test_an_overloaded_server_says_when_to_come_back(name: str) -> None:
    """The delay of RetryInfo, whether or not the reason is known."""
    error = failure(ScriptedServer(naming(grpc.StatusCode.RESOURCE_EXHAUSTED, reason(name), retry_after(1.25))))

    assert isinstance(error, errors.ServerOverloaded)
    assert error.retry_delay_s == 1.25


def test_without_a_delay_there_is_none() -> None:
    """Absent is not zero."""
    error = failure(ScriptedServer(naming(grpc.StatusCode.RESOURCE_EXHAUSTED, reason("SERVER_OVERLOADED"))))

    assert isinstance(error, errors.ServerOverloaded)
    assert error.retry_delay_s is None


def test_details_that_are_torn_leave_the_code() -> None:
    """What something between has written over is no crash of the client."""

    def torn(context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    assert type(failure(ScriptedServer(torn))) is errors.ScopeMissing


def test_grpcs_own_refusal_of_a_large_message_is_that_of_the_image() -> None:
    """The code is the one of overload; its words say what was too large."""
    with (
        serving(ScriptedServer(well), ("grpc.max_receive_message_length", 1000)) as address,
        Client(address) as client,
        pytest.raises(errors.ImageTooManyBytes, match="too large"),
    ):
        client.search(bytes(10_000))


def test_grpcs_own_refusal_of_large_metadata_is_named() -> None:
    """A token longer than what the server reads."""
    error = failure(ScriptedServer(well), ("grpc.absolute_max_metadata_size", 4000), token="x" * 20_000)

    assert type(error) is errors.CallMetadataTooLarge


# --- tokens -----------------------------------------------------------------------------------------------------


def test_the_token_goes_with_every_call() -> None:
    """Searches, administration: the metadata that the contract names."""
    told = ScriptedServer(well)

    with serving(told) as address, Client(address, token=TOKEN) as client:
        client.collection()
        client.refresh()

    assert [call["authorization"] for call in told.calls] == [f"Bearer {TOKEN}"] * 2


def test_without_a_token_none_is_sent() -> None:
    """No empty header."""
    told = ScriptedServer(well)

    with serving(told) as address, Client(address) as client:
        client.collection()

    assert "authorization" not in told.calls[0]


def test_a_call_belongs_to_the_span_that_makes_it() -> None:
    """The caller's trace and span go with it, its baggage does not; without a span there is nothing to send."""
    told = ScriptedServer(well)
    tracer = TracerProvider().get_tracer("test")

    with serving(told) as address, Client(address) as client:
        client.collection()
        outside = baggage.set_baggage("secret", "of the caller")
        with tracer.start_as_current_span("call", context=outside) as span:
            client.collection()

    context = span.get_span_context()
    first, second = told.calls
    assert "traceparent" not in first
    assert second["traceparent"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    assert "baggage" not in second


@pytest.mark.parametrize(
    "address",
    [
        "example.org:50051",
        "10.0.0.1:50051",
        "127.0.0.1.example.org:50051",
        "localhost.example.org:1",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "dns://10.0.0.1/localhost:1",
        "[2001:db8::1]:50051",
    ],
)
def test_a_token_does_not_leave_the_machine_in_plain_text(address: str) -> None:
    """Refused by name, without showing the token; allowed when told so, and over TLS."""
    with pytest.raises(errors.InvalidRequest, match="plain text") as caught:
        Client(address, token=TOKEN)
    Client(address, token=TOKEN, allow_insecure=True).close()
    Client(address, token=TOKEN, credentials=grpc.ssl_channel_credentials(), server_name="example.org").close()

    assert TOKEN not in repr(caught.value)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "dns:///localhost:1", "unix:/run/whatwhere"]
)
def test_a_token_may_go_to_this_machine(address: str) -> None:
    """Loopback in all its spellings."""
    Client(address, token=TOKEN).close()


@pytest.mark.parametrize("token", ["", "two words", "line\n", "é"])
def test_a_token_that_cannot_travel_is_not_shown(token: str) -> None:
    """An error of gRPC itself would print it."""
    with pytest.raises(errors.InvalidRequest) as caught:
        Client("127.0.0.1:1", token=TOKEN + token if token else token)

    assert TOKEN not in str(caught.value)


def test_the_token_is_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the client's text nor that of a refused call, nor of what caused it."""
    caplog.set_level(logging.DEBUG)

    error = failure(ScriptedServer(refusing(grpc.StatusCode.UNAUTHENTICATED)), token=TOKEN)

    assert TOKEN not in repr(Client("127.0.0.1:1", token=TOKEN))
    assert TOKEN not in f"{error!r} {error.__cause__!r}"
    assert TOKEN not in caplog.text


# --- the other services -----------------------------------------------------------------------------------------


def test_a_refresh_returns_what_is_served_then() -> None:
    """By the administration's service."""
    with serving(ScriptedServer(well)) as address, Client(address) as client:
        assert client.refresh().generation == 4


def test_health_is_that_of_the_service_asked_for() -> None:
    """The server as a whole, one that is not serving, one that does not exist."""
    with serving(ScriptedServer(well)) as address, Client(address) as client:
        assert client.health() is True
        assert client.health("tired") is False
        with pytest.raises(errors.UnknownName, match="nobody"):
            client.health("nobody")


def test_health_of_nobody_is_unreachable() -> None:
    """The error that every call has for an address where nobody listens."""
    with Client("127.0.0.1:1", timeout_s=5) as client, pytest.raises(errors.ServerUnreachable, match="whatwhere serve"):
        client.health()
