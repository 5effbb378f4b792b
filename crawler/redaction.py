"""Leaves keys out of what is recorded and told.

Rule: a key is left out in every form in which somebody would send it back: as it is, in Base64, and
as part of an address. It is left out before a text is cut, since the beginning of one is too much.
"""

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from urllib.parse import quote, quote_plus

LEFT_OUT = "…"
SHORTEST = 8
"""What is shorter is a word that a server on this machine wants instead of a key."""
SHORTEST_IN_ANSWER = 16
_READ: dict[str, None] = {}
_ESCAPED = re.compile(rb"\\(?:[\\/]|u00([2-7][0-9a-fA-F]))")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2060-\u206f\ufeff]+")
_UNSEEN_IN_JSON = re.compile(
    rb"(?:\\(?:u00[018][0-9a-fA-F]|u009[0-9a-fA-F]|u007[fF]|u00[aA][dD]|u20(?:0[b-fB-F]|6[0-9a-fA-F])"
    rb"|u[fF][eE][fF][fF]|[bfnrt])"
    rb"|\x7f|\xc2[\x80-\x9f\xad]|\xe2\x80[\x8b-\x8f]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf)+"
)
_HEX = re.compile("%[0-9A-F]{2}")
_NAMED_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return a text without some secrets."""
    for secret in secrets:
        if len(secret) >= SHORTEST:
            for form in _forms(secret):
                text = text.replace(form, LEFT_OUT)
            if not text.isprintable() and secret in _UNSEEN.sub("", text):
                text = _spread(secret).sub(LEFT_OUT, text)
    return text


class HeldBack:
    """A text that comes in pieces, without some secrets: what may begin one waits."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [secret for secret in secrets if len(secret) >= SHORTEST_IN_ANSWER]
        self._forms = [form for secret in self._secrets for form in _forms(secret)]
        self._waits = ""

    def read(self, piece: str) -> str:
        """Take in a piece; return what can be told."""
        text = redacted(self._waits + piece, self._secrets)
        waits = max((_begun(text, form) for form in self._forms), default=0)
        self._waits = text[len(text) - waits :]
        return text[: len(text) - waits]

    def end(self) -> str:
        """Return what has waited: nothing follows it."""
        waited, self._waits = self._waits, ""
        return waited


def _begun(text: str, form: str) -> int:
    """Return how much of a form a text ends with."""
    longest = min(len(form) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(form[:n])), 0)


def redacted_answer(body: bytes, secrets: Iterable[str]) -> bytes:
    """Return an answer in JSON without some secrets, as far as none is a word of a model's."""
    long = [secret for secret in secrets if len(secret) >= SHORTEST_IN_ANSWER]
    if long and b"\\" in body:
        body = _ESCAPED.sub(_plain, body)
    may_hide = b"\\u" in body or b"\x7f" in body or not body.isascii()
    for secret in long:
        for form in _forms(secret):
            body = body.replace(form.encode("utf-8", "surrogateescape"), b"...")
        if may_hide and secret.encode() in _UNSEEN_IN_JSON.sub(b"", body):
            body = _spread_in_json(secret).sub(b"...", body)
    return body


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


@cache
def _spread_in_json(secret: str) -> re.Pattern[bytes]:
    between = b"(?:" + _UNSEEN_IN_JSON.pattern + b")?+"
    return re.compile(between.join(re.escape(char.encode()) for char in secret))


def _plain(escaped: re.Match[bytes]) -> bytes:
    """Return what an escape in JSON stands for, where that means the same without it."""
    if escaped[0] == rb"\/":
        return b"/"
    char = b"" if escaped[1] is None else bytes.fromhex(escaped[1].decode())
    return escaped[0] if char in (b"", b'"', b"\\") else char
