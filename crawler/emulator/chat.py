"""OpenAI's chat completions: how they ask, answer, stream and refuse.

Rule: a model that is not in the list is not served, and answers name the one that is asked for.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from crawler.emulator.answers import JSON_BY_DEFAULT, Answer, Question, tokens_in
from crawler.emulator.dialect import HTTP_STATUSES, Dialect, event
from crawler.emulator.http_server import Reply
from crawler.emulator.quota import Room
from crawler.emulator.refusals import Status
from crawler.emulator.wire import MOST_TOKENS, Asked, pieces_of, tokens_out

_FINISHES = {"STOP": "stop", "MAX_TOKENS": "length"}
_TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 404: "invalid_request_error"}
_QUOTAS = {
    "minute": "requests per min (RPM)",
    "tokens": "tokens per min (TPM)",
    "day": "requests per day (RPD)",
    "concurrency": "concurrent requests",
}
_DONE = event(b"[DONE]")


def chatting(body: bytes) -> Dialect:
    """Read a request of chat completions. Raises ValueError, and others for what has no shape."""
    request = json.loads(body)
    texts = [_text(message.get("content")) for message in request["messages"]]
    most = request.get("max_completion_tokens") or request.get("max_tokens") or MOST_TOKENS
    question = Question(texts[-1], int(most), _schema(request.get("response_format") or {}))
    asked = Asked(str(request["model"]), (question,), sum(map(tokens_in, texts)))
    with_usage = bool((request.get("stream_options") or {}).get("include_usage"))
    events = partial(_events, asked, with_usage=with_usage) if request.get("stream") else None
    return Dialect(asked, "ChatCompletions", partial(_whole, asked), events, refuse)


def _whole(asked: Asked, answers: Sequence[Answer]) -> Reply:
    answer = answers[0]
    if answer.blocked:
        return _filtered()
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.thought:
        message["reasoning_content"] = answer.thought
    choice = {"index": 0, "message": message, "finish_reason": _finish(answer)}
    said = {
        **_head(asked, "chat.completion"),
        "choices": [] if answer.finish is None else [choice],
        "usage": _usage(asked, answer),
    }
    return Reply(200, _json(said))


def _events(asked: Asked, answer: Answer, *, with_usage: bool) -> list[bytes]:
    """Return an answer in pieces, its end, what it has used, and the mark of the stream's end."""
    head = _head(asked, "chat.completion.chunk")
    deltas = [{"content": piece} for piece in pieces_of(answer.text) if piece]
    if answer.thought:
        deltas.insert(0, {"reasoning_content": answer.thought})
    told: list[tuple[dict[str, str], str | None]] = [(delta, None) for delta in deltas]
    if answer.finish is not None:
        told.append(({}, _finish(answer)))
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in told
    ]
    if with_usage:
        chunks.append({**head, "choices": [], "usage": _usage(asked, answer)})
    return [*(event(_json(chunk)) for chunk in chunks), _DONE]


def listed(models: Sequence[str]) -> Reply:
    """Answer which models there are."""
    entries = [
        {"id": model, "object": "model", "created": 0, "owned_by": "emulator"} for model in models
    ]
    return Reply(200, _json({"object": "list", "data": entries}))


def missing(model: str) -> Reply:
    """Refuse a model that is not there."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return _error(404, message, "model_not_found")


def refuse(status: Status, why: str | None = None) -> Reply:
    """Say a status as OpenAI says it, and which quota it is of, if of any."""
    code = HTTP_STATUSES[status.code.name]
    message = f"Rate limit reached on {_QUOTAS[why]}." if why in _QUOTAS else status.message
    return _error(code, message, "rate_limit_exceeded" if why in _QUOTAS else None)


def headers_of(rooms: Mapping[str, Room]) -> dict[str, str]:
    """Return the headers that tell what is left of the quota of a minute."""
    told = {}
    for name, room in rooms.items():
        told[f"x-ratelimit-limit-{name}"] = str(room.most)
        told[f"x-ratelimit-remaining-{name}"] = str(room.left)
        told[f"x-ratelimit-reset-{name}"] = f"{room.full_in_ms}ms"
    return told


def _text(content: Any) -> str:
    parts = [{"text": content}] if isinstance(content, str) else content or []
    return "".join(part.get("text") or "" for part in parts)


def _schema(wanted: Mapping[str, Any]) -> Mapping[str, Any] | None:
    match wanted.get("type"):
        case "json_schema":
            return dict(wanted["json_schema"]["schema"])
        case "json_object":
            return JSON_BY_DEFAULT
        case _:
            return None


def _head(asked: Asked, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-emulated", "object": kind, "created": 0, "model": asked.model}


def _finish(answer: Answer) -> str:
    return _FINISHES.get(answer.finish or "", "content_filter")


def _usage(asked: Asked, answer: Answer) -> dict[str, Any]:
    out = tokens_out(answer)
    usage: dict[str, Any] = {
        "prompt_tokens": asked.tokens,
        "completion_tokens": out,
        "total_tokens": asked.tokens + out,
    }
    if answer.thought:
        usage["completion_tokens_details"] = {"reasoning_tokens": tokens_in(answer.thought)}
    return usage


def _filtered() -> Reply:
    message = (
        "The response was filtered due to the prompt triggering the content management policy."
        " Please modify your prompt and retry."
    )
    return _error(400, message, "content_filter")


def _error(status: int, message: str, code: str | None) -> Reply:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "requests")  # noqa: PLR2004 - a status
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Reply(status, _json({"error": error}))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
