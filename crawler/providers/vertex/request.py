"""From parameters and a prompt to the message that is sent.

Rule: whatever the parameters say is understood once, before the first call; a call only adds its
prompt.

Parameters are the fields of Vertex AI's GenerationConfig (``temperature``, ``max_output_tokens``,
``top_p``, ``stop_sequences``, ``seed``, ``response_mime_type`` …), also by the names that REST has
(``maxOutputTokens``), and of our own:

- ``method``: ``generate``, ``stream`` or ``predict``; by the model's name where it is not said.
- ``system``: the system instruction.
- ``thinking``: a budget in tokens, a level (``low`` …), or a whole ThinkingConfig.
- ``response_schema``: JSON Schema, or Vertex AI's own kind with types in upper case.
- ``safety_settings``: {category: threshold}, e.g. {"harassment": "block_only_high"}.
- ``labels``: {name: value}, for the bill.
- ``request_type``: ``flex`` or ``priority``; ``dedicated`` or ``shared`` of provisioned throughput.
- ``google_search``: true, or the fields of the tool; ``tools``, ``tool_config`` and
  ``cached_content`` as the service has them.
- ``allow_truncated``, ``checks``, ``retry_temperature``: as everywhere.
- for ``predict``: ``instance``, what is sent, with "{prompt}" where the prompt goes ({"content":
  "{prompt}"}); ``text_at``, where the text is in a prediction ("content"; dots and numbers lead
  further in; "" is the prediction itself); ``parameters``, sent as they are.
"""

import difflib
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

from google.protobuf import json_format, struct_pb2

from crawler.answer_schema import SCHEMA, nodes
from crawler.protocol import Call
from crawler.providers.answers.check import JSON_TYPE, MIME_TYPE
from crawler.providers.vertex.messages import (
    CAPACITY_HEADER,
    GENERATE,
    PREDICT,
    REQUEST_TYPE_HEADER,
    STREAM,
    GenerateContentRequest,
    GenerationConfig,
    PredictRequest,
)

METHODS = {"generate": GENERATE, "stream": STREAM, "predict": PREDICT}
PREDICTING_MODELS = ("chat-bison", "code-bison", "text-bison", "text-unicorn")
"""Served by Predict; all that came after them by GenerateContent."""
REQUEST_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "flex": REQUEST_TYPE_HEADER,
        "priority": REQUEST_TYPE_HEADER,
        "dedicated": CAPACITY_HEADER,
        "shared": CAPACITY_HEADER,
    }
)
PASSED = ("cached_content", "tool_config", "tools")
"""Fields of the request itself that are sent as they are."""
OWN_PARAMS = frozenset(
    {
        "allow_truncated",
        "checks",
        *PASSED,
        "google_search",
        "labels",
        "method",
        "request_type",
        SCHEMA,
        "retry_temperature",
        "safety_settings",
        "system",
        "thinking",
    }
)
PREDICT_PARAMS = frozenset({"instance", "parameters", "text_at"})
UNPREDICTABLE = (*PASSED, "google_search", "safety_settings", "system", "thinking")
PROMPT = "{prompt}"
KINDS: Mapping[str, tuple[Any, str]] = MappingProxyType(
    {
        "cached_content": (str, "name of a cache"),
        "google_search": ((bool, Mapping), "true, false or object"),
        "parameters": (Mapping, "object"),
        "tool_config": (Mapping, "object"),
        "tools": (list, "list"),
        SCHEMA: (Mapping, "object"),
        "retry_temperature": ((int, float), "number"),
        "system": (str, "text"),
        "thinking": ((int, str, Mapping), "budget, level or ThinkingConfig"),
    }
)


_CONFIG_FIELDS = GenerationConfig.DESCRIPTOR.fields_by_name


class Shape(NamedTuple):
    """What all calls of a prompt have in common."""

    method: str
    message: Any
    """The request without its prompt."""
    headers: tuple[tuple[str, str], ...]
    instance: Any
    text_at: str


def shape(model: str, resource: str, params: Mapping[str, Any]) -> Shape:
    """Return what the calls of a prompt have in common.

    Args:
        model: the model, as the user names it.
        resource: its full resource name.
        params: the prompt's parameters, see above.

    Raises ValueError, saying what is wrong with which parameter.

    """
    _require_json(params)
    method = _method(model, params)
    make = _predict_message if method == PREDICT else _generate_message
    try:
        message = make(resource, params)
        instance = _instance(params) if method == PREDICT else None
    except (TypeError, json_format.ParseError) as error:
        raise ValueError(_told(error)) from error
    return Shape(
        method=method,
        message=message,
        headers=_headers(method, resource, params),
        instance=instance,
        text_at=str(params.get("text_at", "content")),
    )


def request(made: Shape, call: Call) -> Any:
    """Return the message of one call. Raises ValueError if a prompt can't be in one."""
    try:
        return _filled_in(made, call)
    except (UnicodeEncodeError, json_format.ParseError) as error:
        raise ValueError("it has half a character in it, a lone surrogate") from error


def _filled_in(made: Shape, call: Call) -> Any:
    message = type(made.message)()
    message.CopyFrom(made.message)
    if made.method == PREDICT:
        filled = _filled(made.instance, call.prompt + call.prefill)
        json_format.ParseDict(filled, message.instances.add())
        if call.number > 1:
            _vary_fields(message.parameters.struct_value.fields, call)
        return message
    content = message.contents.add()
    content.role = "user"
    content.parts.add().text = call.prompt
    if call.prefill:
        content = message.contents.add()
        content.role = "model"
        content.parts.add().text = call.prefill
    if call.number > 1:
        _vary(message.generation_config, call)
    return message


def _vary(config: Any, call: Call) -> None:
    """Make a further attempt another one: the same seed would bring the same answer."""
    if "retry_temperature" in call.params:
        config.temperature = call.params["retry_temperature"]
    if config.HasField("seed"):
        config.seed = (config.seed + call.number - 1) % 2**31


def _vary_fields(fields: Any, call: Call) -> None:
    """Do the same to the parameters of Predict."""
    if "retry_temperature" in call.params:
        fields["temperature"].number_value = call.params["retry_temperature"]
    if "seed" in fields and fields["seed"].HasField("number_value"):
        fields["seed"].number_value = (fields["seed"].number_value + call.number - 1) % 2**31


def _require_json(params: Mapping[str, Any]) -> None:
    """Refuse what Python can hold and a message can't."""
    for name, value in params.items():
        try:
            for node in nodes({name: value}):
                _require_sendable(node)
        except ValueError as error:
            raise ValueError(f"{name} can't be sent: {error}") from error


def _require_sendable(node: object) -> None:
    if isinstance(node, str):
        node.encode()
    # Written so that NaN, too, is refused.
    if isinstance(node, int | float) and not abs(node) <= sys.float_info.max:
        raise ValueError("it has a number that is none, or too large")


def _method(model: str, params: Mapping[str, Any]) -> str:
    old = model.rpartition("/")[2].startswith(PREDICTING_MODELS)
    named = params.get("method", "predict" if old else "generate")
    if not isinstance(named, str) or named not in METHODS:
        raise ValueError(f"method is {named!r}; it can be {', '.join(METHODS)}")
    return METHODS[named]


def _generate_message(resource: str, params: Mapping[str, Any]) -> Any:
    params = _as_ours(params)
    _require_own(params)
    config = {name: value for name, value in params.items() if name not in OWN_PARAMS}
    _require_known(config)
    if "thinking" in params:
        config["thinking_config"] = _thinking(params["thinking"])
    if SCHEMA in params:
        config[_schema_field(params[SCHEMA])] = params[SCHEMA]
        config.setdefault(MIME_TYPE, JSON_TYPE)
    whole = {
        "model": resource,
        "generation_config": config,
        "safety_settings": _safety_settings(params.get("safety_settings", {})),
        "labels": params.get("labels", {}),
        **{name: params[name] for name in PASSED if name in params},
    }
    if params.get("google_search", False) is not False:
        search = {} if params["google_search"] is True else params["google_search"]
        whole["tools"] = [*params.get("tools", []), {"google_search": search}]
    if "system" in params:
        whole["system_instruction"] = {"parts": [{"text": params["system"]}]}
    return json_format.ParseDict(whole, GenerateContentRequest())


def _as_ours(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return parameters by the names that they have here, where they are named as in REST."""
    known = {_camel(name): name for name in (*_CONFIG_FIELDS, *OWN_PARAMS)}
    named = {known.get(name, name): value for name, value in params.items()}
    if len(named) < len(params):
        twice = next(known[name] for name in params if known.get(name, name) != name)
        raise ValueError(f"{twice} is given twice, by both of its names")
    return named


def _require_own(params: Mapping[str, Any]) -> None:
    """Refuse values that would be refused by another name than they have here, or too late."""
    for name, (kinds, what) in KINDS.items():
        if name in params and not isinstance(params[name], kinds):
            raise ValueError(f"{name} is {params[name]!r}, which is no {what}")


def _require_known(config: Mapping[str, Any]) -> None:
    known = _CONFIG_FIELDS
    for name in config:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *OWN_PARAMS], 1)
            meant = f"; is {close[0]} meant?" if close else ""
            raise ValueError(f"there is no parameter {name!r}{meant}")


def _predict_message(resource: str, params: Mapping[str, Any]) -> Any:
    _require_own(params)
    for name in UNPREDICTABLE:
        if name in params:
            raise ValueError(f"{name} is nothing that the method predict can be told")
    plain = {
        _camel(name): value
        for name, value in params.items()
        if name not in OWN_PARAMS | PREDICT_PARAMS
    }
    whole = {
        "endpoint": resource,
        "parameters": {**plain, **params.get("parameters", {})},
        "labels": params.get("labels", {}),
    }
    return json_format.ParseDict(whole, PredictRequest())


def _instance(params: Mapping[str, Any]) -> Any:
    """Return what an instance is made of. Raises ValueError if it can't be one."""
    instance = params.get("instance", {"content": PROMPT})
    json_format.ParseDict(_filled(instance, ""), struct_pb2.Value())
    if _filled(instance, PROMPT) == _filled(instance, ""):
        raise ValueError(f"instance has no {PROMPT} in it, so that no prompt would be sent")
    return instance


def _headers(method: str, resource: str, params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    field = "endpoint" if method == PREDICT else "model"
    # By this header, and not by the message, the service finds the model.
    headers = [("x-goog-request-params", f"{field}={quote(resource, safe='')}")]
    if "request_type" in params:
        wanted = params["request_type"]
        header = REQUEST_TYPES.get(wanted) if isinstance(wanted, str) else None
        if header is None:
            raise ValueError(
                f"request_type is {params['request_type']!r}; it can be {', '.join(REQUEST_TYPES)}"
            )
        headers.append((header, wanted))
    return tuple(headers)


def _thinking(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        return {"thinking_level": value.upper()}
    if isinstance(value, Mapping):
        return value
    return {"thinking_budget": value}


def _schema_field(schema: Mapping[str, Any]) -> str:
    """Return where a schema goes: types are in lower case in JSON Schema, in upper in Vertex's."""
    return "response_schema" if str(schema.get("type")).isupper() else "response_json_schema"


def _safety_settings(settings: Any) -> Any:
    if not isinstance(settings, Mapping):
        return settings  # a list, as the service itself has it
    return [
        {"category": _category(category), "threshold": str(threshold).upper()}
        for category, threshold in settings.items()
    ]


def _category(name: str) -> str:
    upper = name.upper()
    return upper if upper.startswith("HARM_CATEGORY_") else f"HARM_CATEGORY_{upper}"


def _camel(name: str) -> str:
    """Return a name as Predict's models have it: maxOutputTokens for max_output_tokens."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


def _filled(instance: Any, prompt: str) -> Any:
    if isinstance(instance, str):
        return instance.replace(PROMPT, prompt)
    if isinstance(instance, Mapping):
        return {name: _filled(value, prompt) for name, value in instance.items()}
    if isinstance(instance, list):
        return [_filled(value, prompt) for value in instance]
    return instance


def _told(error: Exception) -> str:
    """Return what the library says is wrong."""
    return " ".join(str(error).split())
