"""What stands beside the text of a gRPC status."""

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from crawler.providers.refusals.decision import refusal_of
from crawler.providers.refusals.said import Said
from crawler.providers.vertex.status_details import DETAILS, details_of
from crawler.states.kinds import Kind


def metadata(*details):
    status = status_pb2.Status(code=8, message="?")
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return [("x", "y"), (DETAILS, status.SerializeToString())]


def test_details_are_read_as_json():
    violation = error_details_pb2.QuotaFailure.Violation(subject="p", description="PerDay quota")
    found = details_of(
        metadata(
            error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=9)),
            error_details_pb2.QuotaFailure(violations=[violation]),
            error_details_pb2.ErrorInfo(reason="RATE_LIMIT_EXCEEDED"),
            error_details_pb2.Help(),
        )
    )
    assert [one.get("retryDelay") for one in found] == ["9s", None, None]
    assert found[1]["violations"][0]["description"] == "PerDay quota"
    said = Said(None, {}, "Quota exceeded", "RESOURCE_EXHAUSTED", found)
    assert refusal_of(said).kind is Kind.THROTTLED_DAY


def test_what_can_not_be_read_is_left_out():
    assert details_of(None) == []
    assert details_of([("x", "y")]) == []
    assert details_of([(DETAILS, b"\xff\xff\xff")]) == []
    broken = status_pb2.Status()
    broken.details.append(
        any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")
    )
    assert details_of([(DETAILS, broken.SerializeToString())]) == []
