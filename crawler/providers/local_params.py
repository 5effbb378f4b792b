"""The parameters that the server of a local model takes, and of which type each is.

Rule: pure. That server ignores what it does not know, so a name with a slip in it would change
nothing, and nobody would be told.
"""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from crawler.answer_schema import SCHEMA
from crawler.providers.answers.check import CHECKS, MIME_TYPE

Test = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_KINDS: Mapping[str, tuple[Test, str]] = MappingProxyType(
    {
        "anything": (lambda _: True, "a value"),
        "boolean": (lambda value: isinstance(value, bool), "true or false"),
        "endpoint": (lambda value: value in ("chat", "completion"), "chat or completion"),
        "checks": (
            lambda value: _is_list_of_texts(value) and set(value) <= set(CHECKS),
            f"a list of {' and '.join(CHECKS)}",
        ),
        "list": (lambda value: isinstance(value, list), "a list"),
        "number": (_is_number, "a number"),
        "object": (lambda value: isinstance(value, dict), "an object"),
        "text": (lambda value: isinstance(value, str), "a text"),
        "texts": (
            lambda value: isinstance(value, str) or _is_list_of_texts(value),
            "a text or a list of texts",
        ),
        "whole": (lambda value: _is_number(value) and value % 1 == 0, "a whole number"),
    }
)
_NAMES: Mapping[str, str] = MappingProxyType(
    {
        # Our own, as for every OpenAI-compatible server.
        "boolean": "allow_truncated",
        "checks": "checks",
        "endpoint": "endpoint",
        "object": f"{SCHEMA} stream_options",
        "text": f"system {MIME_TYPE}",
        "whole": "max_output_tokens",
        "number": "retry_temperature",
    }
)
_SERVERS_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "anything": "logit_bias logprobs lora n_probs speculative tool_choice",
        "boolean": "add_generation_prompt cache_prompt ignore_eos parallel_tool_calls"
        " post_sampling_probs return_tokens timings_per_token",
        "list": "tools",
        "number": "dry_base dry_multiplier dynatemp_exponent dynatemp_range frequency_penalty min_p"
        " mirostat_eta mirostat_tau presence_penalty repeat_penalty temperature top_n_sigma top_p"
        " typical_p xtc_probability xtc_threshold",
        "object": "chat_template_kwargs json_schema response_format",
        "text": "grammar reasoning_format user",
        "texts": "dry_sequence_breakers response_fields samplers stop",
        "whole": "dry_allowed_length dry_penalty_last_n id_slot max_completion_tokens max_tokens"
        " min_keep mirostat n n_discard n_indent n_keep n_predict reasoning_budget repeat_last_n"
        " seed t_max_predict_ms top_k top_logprobs",
    }
)
KIND_OF: Mapping[str, str] = MappingProxyType(
    {
        name: kind
        for table in (_NAMES, _SERVERS_NAMES)
        for kind, names in table.items()
        for name in names.split()
    }
)
"""The kind of each parameter."""


def fault(params: Mapping[str, Any]) -> str | None:
    """Return what keeps parameters from being sent; None if nothing does."""
    for name, value in params.items():
        if name not in KIND_OF:
            close = difflib.get_close_matches(name, KIND_OF, 1)
            meant = f"; is {close[0]} meant?" if close else ""
            return f"there is no parameter {name!r}{meant}"
        fits, what = _KINDS[KIND_OF[name]]
        if not fits(value):
            return f"{name} is {value!r}, and has to be {what}"
    return None
