"""What is posted to an OpenAI-compatible server for a call.

Rule: pure. Parameters of our own stay here (`OWN_PARAMS`), and all others go out as they are.
"""

from collections.abc import Mapping
from typing import Any

from crawler.answer_schema import SCHEMA
from crawler.answer_schema.checker import as_json_schema
from crawler.errors import CrawlerError, Exit
from crawler.protocol import Call
from crawler.providers.answers.check import MIME_TYPE, wants_json
from crawler.providers.openai.headers import HEADERS, check_headers

OWN_PARAMS = frozenset(
    {
        "allow_truncated",
        "checks",
        "endpoint",
        HEADERS,
        "max_output_tokens",
        MIME_TYPE,
        SCHEMA,
        "retry_temperature",
        "stream",
        "stream_options",
        "system",
    }
)


def check_params(model: str, params: Mapping[str, Any]) -> None:
    """Refuse parameters that can't be sent. Raises CrawlerError."""
    del model
    check_headers(params)
    seed = params.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise CrawlerError(
            "the parameter seed can't be used",
            f"it is {seed!r}, and has to be a whole number",
            "--param seed=1",
            Exit.USAGE,
        )


def request_body(call: Call) -> dict[str, Any]:
    """Return what is posted for a call."""
    params = call.params
    body = {name: value for name, value in params.items() if name not in OWN_PARAMS}
    body["model"] = call.model
    if "max_output_tokens" in params:
        body["max_tokens"] = params["max_output_tokens"]
    if call.number > 1 and "retry_temperature" in params:
        body["temperature"] = params["retry_temperature"]
    if "seed" in params:
        body["seed"] = params["seed"] + call.number - 1
    if wants_json(params):
        body.setdefault("response_format", _response_format(params.get(SCHEMA)))
    if is_completion(call):
        body["prompt"] = call.prompt + call.prefill
        return body
    messages = [{"role": "system", "content": params["system"]}] if "system" in params else []
    messages.append({"role": "user", "content": call.prompt})
    if call.prefill:
        messages.append({"role": "assistant", "content": call.prefill})
    body["messages"] = messages
    return body


def streaming_body(call: Call) -> dict[str, Any]:
    """Return what is posted for a call whose answer is to come in pieces."""
    options = call.params.get("stream_options", {"include_usage": True})
    asked = {"stream_options": options} if options else {}
    return {**request_body(call), "stream": True, **asked}


def _response_format(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {"type": "json_object"}
    # Not "strict": that would refuse every schema that leaves a field to the model.
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": as_json_schema(schema)},
    }


def is_completion(call: Call) -> bool:
    """Tell whether a text is to be continued, and no chat."""
    return bool(call.params.get("endpoint") == "completion")
