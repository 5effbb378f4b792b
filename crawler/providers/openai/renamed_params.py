"""Parameters that mean the same under two names, and which of them a server wants.

Rule: pure. A name is changed only as the server itself says, and only where nothing else changes
with it. What it does not know under any name is a person's to mend.
"""

from collections.abc import Collection, Mapping
from typing import Any

from crawler.protocol import Answer, ProviderError
from crawler.providers.refusals.said import Said, plain, text_of
from crawler.states import Outcome
from crawler.states.kinds import Kind

_OLD, _NEW = "max_tokens", "max_completion_tokens"
_INSTEAD = ("use", "use parameter", "use the parameter", "in favor of", "replaced by", "renamed to")
_UNKNOWN = ("extra inputs", "extra fields", "extra forbidden", "unrecognized", "unknown")
_BAD_REQUEST, _UNPROCESSABLE = 400, 422


def other_name(said: Said, sent: Collection[str]) -> tuple[str, str] | None:
    """Return a name that was sent and refused, and the name that the server has for it."""
    if said.status not in (_BAD_REQUEST, _UNPROCESSABLE):
        return None
    words = plain(text_of(said)).words
    for ours, theirs in ((_OLD, _NEW), (_NEW, _OLD)):
        if ours not in sent or theirs in sent or f" {_spoken(ours)} " not in words:
            continue
        if any(f" {instead} {_spoken(theirs)} " in words for instead in _INSTEAD):
            return ours, theirs
        # Who is too old to know the new name can't tell that it was another before.
        if ours == _NEW and any(f" {unknown} " in words for unknown in _UNKNOWN):
            return ours, theirs
    return None


def renamed(body: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return what is posted, under the names that are wanted."""
    return {names.get(name, name): value for name, value in body.items()} if names else body


def learned(ours: str, theirs: str, status_code: int) -> ProviderError:
    """Return the end of the call that a name was learned from: its word is asked again at once."""
    return asked_again(f"the server wants {theirs} in place of {ours}", status_code)


def asked_again(why: str, status_code: int) -> ProviderError:
    """Return the end of a call that taught something: its word is asked again at once."""
    return ProviderError(
        Outcome.INTERRUPTED,
        f"{why}; it is asked again so (HTTP {status_code})",
        status_code=status_code,
        answer=Answer("", 0, 0),
        kind=Kind.PARAMETER,
    )


def _spoken(name: str) -> str:
    return name.replace("_", " ")
