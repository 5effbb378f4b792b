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
_HEX = re.compile("%[0-9A-F]{2}")
_NAMED_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return a text without some secrets."""
    for secret in secrets:
        if len(secret) >= SHORTEST:
            for form in _forms(secret):
                text = text.replace(form, LEFT_OUT)
    return text


def redacted_answer(body: bytes, secrets: Iterable[str]) -> bytes:
    """Return an answer in JSON without some secrets, as far as none is a word of a model's."""
    long = [secret for secret in secrets if len(secret) >= SHORTEST_IN_ANSWER]
    if long and b"\\" in body:
        body = _ESCAPED.sub(_plain, body)
    for secret in long:
        for form in _forms(secret):
            body = body.replace(form.encode("utf-8", "surrogateescape"), b"...")
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


def _plain(escaped: re.Match[bytes]) -> bytes:
    """Return what an escape in JSON stands for, where that means the same without it."""
    if escaped[0] == rb"\/":
        return b"/"
    char = b"" if escaped[1] is None else bytes.fromhex(escaped[1].decode())
    return escaped[0] if char in (b"", b'"', b"\\") else char
