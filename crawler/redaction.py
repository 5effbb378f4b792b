"""Leaves keys out of what is recorded and told.

Rule: a key is left out in every form in which somebody would send it back: as it is, in Base64, and
as part of an address. It is left out before a text is cut, since the beginning of one is too much.
"""

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import NamedTuple
from urllib.parse import quote, quote_plus

LEFT_OUT = "…"
SHORTEST = 8
"""What is shorter is a word that a server on this machine wants instead of a key."""
SHORTEST_IN_ANSWER = 16
MOST_UNSEEN = 64
"""Characters that show nothing and wait with the beginning of a secret: more are dropped."""
_READ: dict[str, None] = {}
_UNSEEN = re.compile(
    "[\0-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160"
    "\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufffb\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]+"
)
"""What shows nothing: control and format characters, variation selectors, fillers, tags."""
_HEX = re.compile("%[0-9A-F]{2}")
_NAMED_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return a text without some secrets."""
    return _without(text, _sought(tuple(secrets), SHORTEST))


def redacted_answer(text: str, secrets: Iterable[str]) -> str:
    """Return what a model wrote without some secrets, as far as none is a word of a model's."""
    if len(text) < SHORTEST_IN_ANSWER:
        return text
    return _without(text, _sought(tuple(secrets), SHORTEST_IN_ANSWER))


class _Sought(NamedTuple):
    secrets: tuple[str, ...]
    forms: tuple[str, ...]


@lru_cache(maxsize=64)
def _sought(secrets: tuple[str, ...], shortest: int) -> _Sought:
    """Return what is looked for in a text."""
    known = tuple(dict.fromkeys(secret for secret in secrets if len(secret) >= shortest))
    return _Sought(known, tuple(form for secret in known for form in _forms(secret)))


def _without(text: str, sought: _Sought) -> str:
    for form in sought.forms:
        if form in text:
            text = text.replace(form, LEFT_OUT)
    if not (text.isascii() and text.isprintable()):
        seen = _UNSEEN.sub("", text)
        for secret in sought.secrets:
            if secret in seen:
                text = _spread(secret).sub(LEFT_OUT, text)
    return text


class HeldBack:
    """A text that comes in pieces, without some secrets: what may begin one waits."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [secret for secret in secrets if len(secret) >= SHORTEST_IN_ANSWER]
        self._forms = [form for secret in self._secrets for form in _forms(secret)]
        self._longest = max(map(len, self._forms), default=0)
        self._waits = ""

    def read(self, piece: str) -> str:
        """Take in a piece; return what can be told."""
        text = redacted(self._waits + piece, self._secrets)
        at = self._begins_at(text)
        self._waits = text[at:]
        if len(self._waits) > MOST_UNSEEN:
            self._waits = _UNSEEN.sub("", self._waits)
        return text[:at]

    def end(self) -> str:
        """Return what has waited: nothing follows it."""
        waited, self._waits = self._waits, ""
        return waited

    def _begins_at(self, text: str) -> int:
        """Return where at the end of a text a secret may begin, whatever is between its letters."""
        seen = text
        if not (text.isascii() and text.isprintable()):
            seen = _UNSEEN.sub("", text)
        seen = seen[-self._longest :]
        left = max((_begun(seen, form) for form in self._forms), default=0)
        at = len(text)
        while left:
            at -= 1
            left -= _UNSEEN.match(text, at) is None
        return at


def _begun(text: str, form: str) -> int:
    """Return how much of a form a text ends with."""
    at = text.find(form[0], max(0, len(text) - len(form) + 1))
    while at >= 0 and not form.startswith(text[at:]):
        at = text.find(form[0], at + 1)
    return len(text) - at if at >= 0 else 0


def secrets_of_environment() -> list[str]:
    """Return what the environment calls a key, a token, a secret or a password."""
    named = [value.strip() for name, value in os.environ.items() if _NAMED_SECRET.search(name)]
    return [*named, *_READ]


def remember(secrets: Iterable[str]) -> None:
    """Have what was read from a file, a command or any other variable left out, too."""
    _READ.update((secret, None) for secret in secrets if secret)


def read_secrets() -> list[str]:
    """Return what was remembered."""
    return list(_READ)


@cache
def _forms(secret: str) -> tuple[str, ...]:
    # What is around a text in Base64 changes its first and its last characters, and its length
    # modulo 3 all of them: so in three shifts, without those.
    raw = secret.encode("utf-8", "surrogateescape")
    shifted = (b64encode(b"\0" * n + raw).decode().rstrip("=") for n in range(3))
    inner = (text[-(-n * 4 // 3) : -1] for n, text in enumerate(shifted))
    quoted = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    lower = {_HEX.sub(lambda code: code[0].lower(), text) for text in quoted}
    return (secret, *sorted(quoted | lower), *inner)


@cache
def _spread(secret: str) -> re.Pattern[str]:
    """Return a secret with characters between its own that can't be seen."""
    return re.compile(f"(?:{_UNSEEN.pattern})?+".join(map(re.escape, secret)))
