"""Every error has its status, and what is not ours says nothing of itself."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from whatwhere.indexer import errors
from whatwhere.service.api.status import STATUS_CODES, to_status


def all_errors(base: type[errors.WhatwhereError] = errors.WhatwhereError) -> set[type[errors.WhatwhereError]]:
    return {base}.union(*map(all_errors, base.__subclasses__()))


def details(status: status_pb2.Status, kind: type) -> list:  # type: ignore[type-arg]
    found = []
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    return found


def test_the_table_has_a_row_for_each_error() -> None:
    """An error without a status would be an INTERNAL by accident."""
    assert set(STATUS_CODES) == all_errors()


def test_every_error_has_a_reason_of_its_own() -> None:
    """Programs switch on the reason."""
    reasons = [error.reason for error in all_errors()]

    assert len(set(reasons)) == len(reasons)
    assert all(reason.isupper() for reason in reasons)


def test_every_status_carries_one_reason_and_the_request_id() -> None:
    """One ErrorInfo with reason, domain and request id."""
    statuses = {kind: to_status(kind("what was wrong; what to do"), "id-1") for kind in all_errors()}
    told = {
        kind: (status.code, [(info.reason, info.domain, info.metadata["request_id"]) for info in infos])
        for kind, status in statuses.items()
        for infos in [details(status, error_details_pb2.ErrorInfo)]
    }

    assert told == {kind: (STATUS_CODES[kind].value[0], [(kind.reason, "whatwhere", "id-1")]) for kind in all_errors()}


def test_a_field_at_fault_is_named() -> None:
    """A BadRequest tells a form which input to mark."""
    status = to_status(errors.InvalidRegion("region.x_min is 2", field="region.x_min"), "id-1")

    (bad,) = details(status, error_details_pb2.BadRequest)
    assert [violation.field for violation in bad.field_violations] == ["region.x_min"]


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("/home/secret"), errors.CollectionCorrupt("/home/secret is torn"), KeyError("secret")]
)
def test_what_is_the_servers_own_stays_in_its_log(error: Exception) -> None:
    """The caller gets the request id, not the path."""
    status = to_status(error, "id-1")

    assert "secret" not in str(status)
    assert "id-1" in status.message
    assert status.code in (grpc.StatusCode.INTERNAL.value[0], grpc.StatusCode.DATA_LOSS.value[0])
