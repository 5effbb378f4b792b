"""The services that answer prompts, one file each; connected when the first call needs one.

A new one is a file with ``connect(model)`` and a line in `KINDS`; what it takes and returns is in
`crawler.protocol`.

Rule: a provider makes one call when it is told to and says how it ended. It never retries, waits
for quota, or remembers: that is the ledger's.
"""

import importlib
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from crawler.errors import CrawlerError, Exit
from crawler.providers.openai.headers import added_headers
from crawler.providers.openai.servers import SERVERS, address_of, is_server, no_provider


class Kind(NamedTuple):
    """What is known of a provider without importing it."""

    module: str
    """Has ``connect(model)``, an async context manager that yields a provider."""
    default_model: str | None
    concurrency: int | None
    """Calls in flight at once, until the user says otherwise; None: it finds itself."""
    is_server: bool = False
    """One of many OpenAI-compatible servers: ``connect(model, name)``."""


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "local": Kind("crawler.providers.local", "SmolLM2-135M-Instruct", 4),
        "vertex": Kind("crawler.providers.vertex.service", "gemini-2.5-flash", None),
        "scripted": Kind("crawler.providers.scripted", "scripted", 10),
    }
)
_SERVER = Kind("crawler.providers.openai.service", None, None, is_server=True)


def kind_of(provider: str) -> Kind:
    """Return what is known of a provider. Raises CrawlerError for a name that is none."""
    if provider in KINDS:
        return KINDS[provider]
    if is_server(provider, os.environ):
        return _SERVER
    raise no_provider(provider, [*KINDS, *SERVERS])


def check_environment(provider: str, model: str, params: Mapping[str, Any]) -> None:
    """Refuse to ask a server on record whose address, or a header's variable, is not set any more.

    Raises CrawlerError.
    """
    if provider not in KINDS and provider != "function":
        address_of(provider, model, os.environ)
        added_headers(params)


def model_for(provider: str, named: str | None) -> str:
    """Return the model that is named, or the provider's own. Raises CrawlerError for neither."""
    model = named or kind_of(provider).default_model
    if model:
        return model
    raise CrawlerError(
        f"provider {provider!r} needs a model",
        "it has no default",
        "name it with --model",
        Exit.USAGE,
    )


def check_params(provider: str, model: str, params: Mapping[str, Any]) -> None:
    """Refuse parameters that the provider could not send. Raises CrawlerError.

    A provider that takes any, and leaves it to its server to refuse some, has nothing to say here.
    """
    if not isinstance(params.get("allow_truncated", True), bool):
        raise CrawlerError(
            "the parameter allow_truncated can't be used",
            f"it is {params['allow_truncated']!r}, and has to be true or false",
            "--param allow_truncated=true",
            Exit.USAGE,
        )
    most_out = params.get("max_output_tokens", 1)
    if isinstance(most_out, bool) or not isinstance(most_out, int) or most_out < 1:
        raise CrawlerError(
            "the parameter max_output_tokens can't be used",
            f"it is {most_out!r}, and has to be a whole number of at least 1",
            "--param max_output_tokens=300",
            Exit.USAGE,
        )
    module = importlib.import_module(kind_of(provider).module)
    check = getattr(module, "check_params", None)
    if check is not None:
        check(model, params)
