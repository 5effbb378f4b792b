"""Google's REST: the messages of `crawler.emulator.wire` and `library_calls` as JSON.

Rule: the same bytes go to those modules as over gRPC, so that both faces say the same.
"""

import json
from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format
from google.rpc import status_pb2

from crawler.emulator import library_calls, wire
from crawler.emulator.answers import Answer
from crawler.emulator.dialect import HTTP_STATUSES, Dialect, event
from crawler.emulator.http_server import Reply
from crawler.emulator.refusals import Status
from crawler.providers.vertex.messages import (
    GenerateContentRequest,
    GenerateContentResponse,
    PredictRequest,
    PredictResponse,
)

# Any: made at run time.
_Status: Any = status_pb2.Status


def generating(model: str, body: bytes, *, stream: bool) -> Dialect:
    """Read a request of generateContent. Raises json_format.ParseError."""
    request = _parsed(body, GenerateContentRequest(model=model))
    asked = wire.read_generate(request.SerializeToString())

    def whole(answers: Sequence[Answer]) -> Reply:
        said = wire.generated(asked, answers[0], None)
        return Reply(200, _json(GenerateContentResponse.FromString(said)))

    def events(answer: Answer) -> list[bytes]:
        chunks = wire.streamed(asked, answer, None)
        return [event(_json(GenerateContentResponse.FromString(chunk))) for chunk in chunks]

    name = "StreamGenerateContent" if stream else "GenerateContent"
    return Dialect(asked, name, whole, events if stream else None, refuse)


def predicting(model: str, body: bytes) -> Dialect:
    """Read a request of predict. Raises json_format.ParseError."""
    request = _parsed(body, PredictRequest(endpoint=model))
    asked = wire.read_predict(request.SerializeToString())

    def whole(answers: Sequence[Answer]) -> Reply:
        return Reply(200, _json(PredictResponse.FromString(wire.predicted(asked, answers))))

    return Dialect(asked, "Predict", whole, None, refuse)


def counted(body: bytes) -> Reply:
    """Answer a request of countTokens, which no quota counts. Raises json_format.ParseError."""
    return Reply(200, library_calls.counted_as_json(body))


def refuse(status: Status, why: str | None = None) -> Reply:
    """Say a status as Google's REST says it: which quota it is of is in its details."""
    del why
    code = HTTP_STATUSES[status.code.name]
    error = {"code": code, "message": status.message, "status": status.code.name}
    details = [
        detail
        for _, packed in status.metadata
        for detail in json_format.MessageToDict(_Status.FromString(packed)).get("details", ())
    ]
    if details:
        error["details"] = details
    return Reply(code, json.dumps({"error": error}).encode())


def _parsed(body: bytes, request: Any) -> Any:
    return json_format.Parse(body or b"{}", request, ignore_unknown_fields=True)


def _json(message: Any) -> bytes:
    return str(json_format.MessageToJson(message, indent=None)).encode()
