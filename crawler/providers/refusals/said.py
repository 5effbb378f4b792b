"""What a server said in place of an answer, as one text to look for words in, and as a sentence.

Rule: pure, bounded, in linear time. The whole text counts: a message, what stands beside it, what
an inner server said and a gateway passed on; of a very long one its beginning and its end.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

from crawler.redaction import redacted

MOST_TEXT = 65_536
"""Characters that are looked at; three quarters of them from the beginning."""
MOST_NODES = 5_000
REASON_LENGTH = 300
SAYS_NOTHING = "it says nothing"
BAD_REQUEST = 400
NEAR = 100
"""How far apart two parts of a phrase may stand."""
_MOST_PLACES = 50
_SHORTEST_SENT = 16

# Headers that say what a body leaves out.
TELLING = ("x-amzn-errortype", "rate_limit_type", "x-squid-error", "cf-mitigated", "server")

_CAMEL = re.compile("(?<=[a-z0-9])(?=[A-Z])")
_HAN = re.compile("(?=[\u3400-\u9fff])|(?<=[\u3400-\u9fff])")
_FULL_STOP = re.compile(r"\.(?!\d)|(?<!\d)\.")
_SEPARATORS = str.maketrans(
    {**dict.fromkeys('"#$%&()*+,-:;<=>?@[\\]^_`{|}~!…«»“”\0', " "), "/": " / "}
)
_APOSTROPHES = str.maketrans(dict.fromkeys("'’"))
_OURS = ("flagged_input", "failed_generation")
"""Under these names stands what was sent, or what a model wrote: nothing that a server says."""
_BESIDE_OURS = {"msg", "message", "loc", "type", "error", "detail", "model"}
"""Beside one of these also an `input` is what was sent; alone it has the fault of the input."""
_MESSAGES = (
    "message",
    "msg",
    "error",
    "errors",
    "detail",
    "details",
    "title",
    "raw",
    "status_msg",
    "error_msg",
)
_EMPTY_WORDS = ("Provider returned error", "Error", "error", "failure")


class Said(NamedTuple):
    """What came in place of a good answer.

    Attributes:
        status: of the HTTP response; None where none came.
        headers: of the response.
        body: of the response, an event of a stream, or what a gRPC status says.
        code: the name of a gRPC status; "" where it is none.
        details: what a gRPC status has beside its text, as google.rpc writes it in JSON.
        service: who spoke: a provider's name or a host, as far as it is known.
        served_before: this prompt has had an answer before.
        now_ms: our time.
        secrets: what is left out of the reason.
        sent: the prompt, which a server may repeat.

    """

    status: int | None = None
    headers: Mapping[str, str] = {}
    body: bytes | str = b""
    code: str = ""
    details: Sequence[Mapping[str, Any]] = ()
    service: str = ""
    served_before: bool = False
    now_ms: int = 0
    secrets: Sequence[str] = ()
    sent: str = ""


class Text(NamedTuple):
    """A text with one way to write everything: see `plain`."""

    words: str
    begins: frozenset[str]
    """The first letters of each word: most phrases are in no text, and these say so at once."""

    def says(self, phrases: Sequence[str]) -> bool:
        """Tell whether one of some phrases is in it.

        A phrase begins where a word begins and may end within one, unless a ``$`` ends it; parts
        between which there is a ``…`` stand near each other, in that order.
        """
        return any(self._has(phrase) for phrase in phrases)

    def _has(self, phrase: str) -> bool:
        first, rest, begins = _read_phrase(phrase)
        if begins and begins not in self.begins:
            return False
        at = self.words.find(first)
        places = 0
        while at >= 0 and places < _MOST_PLACES:
            if self._follow(rest, at + len(first)):
                return True
            at = self.words.find(first, at + 1)
            places += 1
        return False

    def _follow(self, parts: Sequence[str], at: int) -> bool:
        for part in parts:
            found = self.words.find(part, max(0, at - 1), at + NEAR)
            if found < 0:
                return False
            at = found + len(part)
        return True


_LETTERS = 3
"""Of a word, by which a phrase is ruled out."""


@lru_cache(2_048)
def _read_phrase(phrase: str) -> tuple[str, Sequence[str], str]:
    """Return the first part of a phrase, the others, and the first letters of its first word.

    Those are empty where the word may go on after fewer.
    """
    first, *rest = [f" {part.strip()}".replace("$", " ") for part in phrase.split("…")]
    word, ends, _ = first[1:].partition(" ")
    return first, rest, word[:_LETTERS] if ends or len(word) >= _LETTERS else ""


def plain(text: str) -> Text:
    """Return a text in lower case, in words with one space between.

    ``PerDay``, ``per_day`` and ``per-day`` are "per day", ``6/min`` is "6 / min", ``don't`` "dont".
    Each Chinese character is a word, since nothing stands between them.
    """
    text = _CAMEL.sub(" ", _bounded(text)).lower()
    if not text.isascii():
        text = _HAN.sub(" ", text)
    text = text.translate(_APOSTROPHES).translate(_SEPARATORS)
    words = _FULL_STOP.sub(" ", text).split()
    return Text(f" {' '.join(words)} ", frozenset(word[:_LETTERS] for word in words))


def text_of(said: Said) -> str:
    """Return all that was said, as text: of JSON its names and values, and what headers add."""
    body = decoded(said.body)
    value = json_of(body)
    parts = [body] if value is None else list(_strings(value, said.sent))
    parts += [part for detail in said.details for part in _strings(detail, said.sent)]
    headers = {name.lower(): text for name, text in said.headers.items()}
    parts += [f"{name}: {headers[name]}" for name in TELLING if name in headers]
    text = _bounded("\n".join(parts))
    # A shorter one may be a word that the server says by itself.
    return text.replace(said.sent, " ") if len(said.sent) >= _SHORTEST_SENT else text


def decoded(body: bytes | str) -> str:
    """Return a body as text, its beginning and its end where it is long."""
    if isinstance(body, str):
        return _bounded(body)
    return _bounded(body[: 4 * MOST_TEXT].decode("utf-8", "replace"))


def json_of(body: str) -> Any:
    """Return the JSON object or array that a text is; None if it is none."""
    body = body.strip("\ufeff \t\r\n")
    if not body.startswith(("{", "[")):
        return None
    try:
        return json.loads(body, parse_int=_number, parse_float=_number)
    except (RecursionError, ValueError):
        return None


def sentence(said: Said, status: int | None) -> str:
    """Return what was said as one short line: the code, the words, without secrets."""
    body = decoded(said.body)
    value = json_of(body)
    words = _message(value) if value is not None else _without_tags(body)
    code = said.code or (f"HTTP {status}" if status else "")
    if not words and value and (status or 0) >= BAD_REQUEST:
        words = body  # of a form that we don't know: whoever is to mend it has to read it
    words = "".join(filter(str.isprintable, " ".join(words.split()))) or _phrase(status)
    name = _code_name(value)
    if name and name.lower() not in words.lower():
        words = f"{words} ({name})"
    line = f"{code}: {words}" if code else words
    return redacted("".join(filter(str.isprintable, line)), said.secrets)[:REASON_LENGTH]


def _bounded(text: str) -> str:
    if len(text) <= MOST_TEXT:
        return text
    head = MOST_TEXT * 3 // 4
    return f"{text[:head]} {text[head - MOST_TEXT :]}"


def _number(digits: str) -> Any:
    """Read a number as far as it is one that anybody means; what is longer stays a text."""
    if len(digits) > 30:  # noqa: PLR2004 - digits
        return digits
    return float(digits) if set(digits) & set(".eE") else int(digits)


def _strings(value: Any, sent: str) -> Iterator[str]:
    """Yield the names and values of JSON, a name with its value, without recursion."""
    left, count = [value], 0
    while left and count < MOST_NODES:
        node, count = left.pop(), count + 1
        if isinstance(node, Mapping):
            for name, inner in reversed(list(node.items())[:MOST_NODES]):
                if name in _OURS or (name == "input" and _is_ours(node, sent)):
                    continue
                nested = isinstance(inner, Mapping | list)
                left += [inner, str(name)] if nested else [f"{name}: {inner}"]
        elif isinstance(node, list):
            left += reversed(node[:MOST_NODES])
        else:
            yield str(node)


def _is_ours(node: Mapping[str, Any], sent: str) -> bool:
    """Tell whether the `input` in an object of an error is what was sent."""
    value = node["input"]
    return not _BESIDE_OURS.isdisjoint(node) or (isinstance(value, str) and value in sent)


def _message(value: Any) -> str:
    """Return the innermost message of an error, the first of several."""
    found = ""
    for _ in range(8):
        if isinstance(value, list):
            value = value[0] if value else None
        if isinstance(value, str):
            inner = json_of(value)
            if inner is None:
                return value if value not in _EMPTY_WORDS or not found else found
            value = inner
        if not isinstance(value, Mapping):
            return found
        message, value = _of_object(value)
        found = found if message in _EMPTY_WORDS and found else message or found
        if value is None:
            return found
    return found


def _of_object(value: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the text in an object of an error, and what is to be looked into for a better one."""
    texts = [value[key] for key in _MESSAGES if isinstance(value.get(key), str) and value[key]]
    telling = [text for text in texts if text not in _EMPTY_WORDS]
    inner = [value[key] for key in _MESSAGES if isinstance(value.get(key), Mapping | list)]
    if telling:
        return telling[0], json_of(telling[0])
    metadata = value.get("metadata")
    deeper = next(filter(None, [*inner, metadata]), None)
    return (texts[0] if texts else ""), deeper


def _code_name(value: Any) -> str:
    """Return what an error calls itself: its code or its type, if that is a word."""
    for _ in range(3):
        if isinstance(value, list):
            value = value[0] if value else None
        if not isinstance(value, Mapping):
            return ""
        names = [value.get(key) for key in ("code", "type", "status")]
        if isinstance(value.get("error"), Mapping | list):
            value = value["error"]
            continue
        for name in names:
            if isinstance(name, str) and name[:1].isalpha() and len(name) <= NEAR:
                return name
        return ""
    return ""


def _without_tags(text: str) -> str:
    """Return the text of a page: of its title if it has one."""
    lower = text.lower()
    if "<html" not in lower and "<!doctype" not in lower:
        return text
    start, end = lower.find("<title>"), lower.find("</title>")
    if 0 <= start < end:
        return text[start + len("<title>") : end]
    parts = [part.rpartition(">")[2] for part in text.split("<")]
    return " ".join(parts)


def _phrase(status: int | None) -> str:
    try:
        return HTTPStatus(status or 0).phrase
    except ValueError:
        return SAYS_NOTHING
