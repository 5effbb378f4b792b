"""What a gRPC status has beside its text, as google.rpc writes it in JSON.

Rule: pure; details that can't be read are left out.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DETAILS = "grpc-status-details-bin"
_KINDS = (
    error_details_pb2.RetryInfo,
    error_details_pb2.QuotaFailure,
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.PreconditionFailure,
)


def details_of(trailing_metadata: Iterable[tuple[str, Any]] | None) -> list[dict[str, Any]]:
    """Return the details in the trailing metadata of a call, each as a JSON object."""
    for key, value in trailing_metadata or ():
        if key == DETAILS:
            try:
                details = status_pb2.Status.FromString(value).details
            except (DecodeError, TypeError):
                return []
            return [found for detail in details if (found := _plain(detail)) is not None]
    return []


def _plain(detail: Any) -> dict[str, Any] | None:
    for kind in _KINDS:
        if detail.Is(kind.DESCRIPTOR):
            try:
                return {"@type": detail.type_url, **MessageToDict(kind.FromString(detail.value))}
            except (DecodeError, ValueError):
                return None
    return None
