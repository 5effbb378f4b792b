"""What a call that is not answered is told: a gRPC status, and Google's details of it.

Rule: messages and details as Vertex AI sends them; a fault that was ordered says so.
"""

from typing import Any, NamedTuple

import grpc
from google.rpc import error_details_pb2, status_pb2

from crawler.emulator.quota import Refusal

_SERVICE = "aiplatform.googleapis.com"
_METRICS = {
    "minute": "requests_per_minute_per_project_per_base_model",
    "tokens": "tokens_per_minute_per_project_per_base_model",
    "day": "requests_per_day_per_project_per_base_model",
    "concurrency": "concurrent_requests_per_project_per_base_model",
}
_DETAILS_KEY = "grpc-status-details-bin"
# Any: made at run time.
_rpc: Any = error_details_pb2


class Status(NamedTuple):
    """A gRPC status: code, message, and the metadata that goes with it."""

    code: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, bytes], ...] = ()


def ordered(fault: str) -> Status:
    """Return the status that a fault stands for."""
    code = grpc.StatusCode[fault.upper()]
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # of the quota that all of Vertex's users share
        return Status(code, "Resource exhausted, please try again later.")
    return Status(code, f"The emulator was told to answer {code.name}.")


def over_quota(refusal: Refusal, family: str, model: str, *, retry_info: bool) -> Status:
    """Return the status of a request that a quota refuses.

    ``family`` is what the metric's name begins with, such as ``generate_content``.
    """
    metric = f"{_SERVICE}/{family}_{_METRICS[refusal.why]}"
    message = (
        f"Quota exceeded for {metric} with base model: {model}."
        " Please submit a quota increase request."
    )
    details = [_error_info(metric, model), _quota_failure(message, metric)]
    if retry_info and refusal.wait_ms is not None:
        details.append(_retry_info(refusal.wait_ms))
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    status: Any = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return Status(code, message, ((_DETAILS_KEY, status.SerializeToString()),))


def _error_info(metric: str, model: str) -> Any:
    return _rpc.ErrorInfo(
        reason="RATE_LIMIT_EXCEEDED",
        domain="googleapis.com",
        metadata={"service": _SERVICE, "quota_metric": metric, "base_model": model},
    )


def _quota_failure(message: str, metric: str) -> Any:
    violation = _rpc.QuotaFailure.Violation(subject=metric, description=message)
    return _rpc.QuotaFailure(violations=[violation])


def _retry_info(wait_ms: int) -> Any:
    info = _rpc.RetryInfo()
    info.retry_delay.FromMilliseconds(wait_ms)
    return info
