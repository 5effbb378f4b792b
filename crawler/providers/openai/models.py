"""The models that a server says it has.

Rule: pure. A list that is none, or of a server that takes any name, says nothing against a model.
"""

import json
from collections.abc import Sequence
from typing import Any

from crawler.errors import CrawlerError, Exit
from crawler.providers.openai.servers import server_of
from crawler.redaction import redacted_answer

_NEAREST = 3
_FEW = 5
_MOST_COMPARED, _LONGEST_NAME = 10_000, 200
_TAKES_ANY = "llamacpp"


def models_in(body: bytes, secrets: Sequence[str]) -> list[dict[str, Any]]:
    """Return the models in a server's list, without some secrets; none where it is no list."""

    def cleaned(fields: dict[str, Any]) -> dict[str, Any]:
        return {
            name: redacted_answer(value, secrets) if isinstance(value, str) else value
            for name, value in fields.items()
        }

    try:
        value = json.loads(body.decode("utf-8-sig"), object_hook=cleaned)
    except (RecursionError, ValueError):
        return []
    if isinstance(value, dict):
        value = value.get("data") or value.get("models")
    entries = value if isinstance(value, list) else []
    return [one for one in entries if isinstance(one, dict) and name_of(one)]


def name_of(entry: dict[str, Any]) -> str:
    """Return what a call names a model."""
    name = entry.get("id") or entry.get("name")
    return name.removeprefix("models/") if isinstance(name, str) else ""


def require_listed(provider: str, model: str, listed: Sequence[dict[str, Any]]) -> None:
    """Refuse a model that a server does not have. Raises CrawlerError."""
    names = [name_of(entry) for entry in listed]
    takes_any = any(entry.get("owned_by") == _TAKES_ANY for entry in listed)
    if not names or takes_any or not server_of(provider).lists_all or _is_in(model, names):
        return
    import difflib  # noqa: PLC0415 - for this error alone

    known = [name for name in names if len(name) <= _LONGEST_NAME][:_MOST_COMPARED]
    near = difflib.get_close_matches(model, known, _NEAREST, 0.5) or sorted(known)[:_FEW]
    raise CrawlerError(
        f"{provider} has no model {model!r}",
        f"of the {len(names)} that it has, the nearest: {', '.join(near)}",
        f"crawler prompt models {provider} lists them; crawler run --model NAME asks another",
        Exit.CONFIGURATION,
    )


def _is_in(model: str, names: Sequence[str]) -> bool:
    """Tell whether a list has a model, by this name or one that means the same."""
    if model.startswith(("@", "tunedModels/", "ft:")):
        return True  # an account's own
    model = model.removeprefix("models/")
    known = {name.lower() for name in names}
    return bool({model.lower(), f"{model}:latest".lower(), model.lower().partition(":")[0]} & known)
