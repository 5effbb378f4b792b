"""What an emulated model says: about a word, as JSON or as a list of words.

Rule: pure; made from the prompt and the sample's glosses alone, and marked, so that nobody takes it
for a model's.
"""

import csv
import json
import re
from bisect import bisect_right
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from crawler.emulator.settings import FINISHES

MARK = "[emulated]"
CHARS_PER_TOKEN = 4
LARGE_CHARS = 4_400_000
"""More than the 4 MB that a gRPC client takes if nobody told it to take more."""

_TOPIC = re.compile(r"write a list of ([^\n]+?)\.?(?: Give \d+ of them\.)?(?:\n|$)", re.IGNORECASE)
_QUOTED = re.compile(r'"([^"]+)"')
_WORD = re.compile(r"\w[\w'’-]*")
_LIST = re.compile(r"\blist\b", re.IGNORECASE)
_OF_WORDS = re.compile(r"\bwords\b", re.IGNORECASE)
_BEGINS_LIST = re.compile(r"write a list\b", re.IGNORECASE)
_NUMBER = re.compile(r"\b\d{1,6}\b")
_AFTER = re.compile(r"\bafter\s+(?:the\s+)?(?:word\s+)?[\"'“]?([\w-]+)", re.IGNORECASE)
_LIST_LENGTH = 100
_SENTENCES = {
    "adjective": "Remember what is {word} as {gloss}.",
    "noun": "Think of {word} whenever you meet {gloss}.",
    "verb": "Whoever learns to {word} learns to {gloss}.",
}


class Question(NamedTuple):
    """A prompt; how long its answer may be; the JSON schema of the answer, if it is to be JSON."""

    prompt: str
    most_tokens: int
    schema: Mapping[str, Any] | None = None


class Answer(NamedTuple):
    """An answer.

    ``finish`` is a finish reason, or None where there is no candidate; ``text`` is None where the
    candidate has no content; ``blocked`` tells that the prompt itself was refused.
    """

    text: str | None
    finish: str | None
    thought: str = ""
    blocked: bool = False


class _Gloss(NamedTuple):
    part_of_speech: str
    text: str


@cache
def glosses() -> Mapping[str, _Gloss]:
    """Return the sample words in their order, with what they mean."""
    text = (files("crawler") / "samples" / "gmat.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    return {row["word"]: _Gloss(row["part_of_speech"], row["gloss"]) for row in rows}


def word_of(prompt: str) -> str:
    """Return what a prompt is about: the topic of the list that it asks for, else what it quotes.

    Where it does neither it is a word of the sample, else its last word.
    """
    topic = _TOPIC.match(prompt)
    if topic:
        return topic[1]
    quoted = _QUOTED.search(prompt)
    if quoted:
        return quoted[1]
    words: list[str] = _WORD.findall(prompt)
    known = glosses()
    for word in reversed(words):
        if word.lower() in known:
            return word.lower()
    return words[-1] if words else ""


def tokens_in(text: str) -> int:
    """Return how many tokens a text is taken for."""
    return -(-len(text) // CHARS_PER_TOKEN)


def answer(question: Question, word: str) -> Answer:
    """Return the answer to a question about a word, cut off where it may not be longer."""
    if question.schema is not None:
        text = json.dumps(_filled(question.schema, "definition", word), ensure_ascii=False)
    elif _asks_for_list(question.prompt):
        text = _list_of_words(question.prompt, question.most_tokens * CHARS_PER_TOKEN)
    else:
        text = f"{MARK} Definition: {_definition(word)}\nMemory sentence: {_sentence(word)}"
    most_chars = question.most_tokens * CHARS_PER_TOKEN
    if len(text) > most_chars:
        return Answer(text[:most_chars], "MAX_TOKENS")
    return Answer(text, "STOP")


def _asks_for_list(prompt: str) -> bool:
    named = _LIST.search(prompt)
    of_words = named is not None and _OF_WORDS.search(prompt, named.end()) is not None
    return of_words or _BEGINS_LIST.match(prompt) is not None


def spoilt(good: Answer, fault: str | None, most_tokens: int) -> Answer:
    """Return what a fault makes of a good answer; faults that are no answers leave it as it is.

    ``most_tokens`` is how long the answer may be, its thoughts included.
    """
    text = good.text or ""
    match fault:
        case _ if fault is not None and fault in FINISHES:
            return Answer(None, fault.upper())
        case "blocked":
            return Answer(None, None, blocked=True)
        case "no_candidates":
            return Answer(None, None)
        case "empty":
            return Answer("", "STOP")
        case "truncated":
            return Answer(text[: len(text) // 2], "MAX_TOKENS")
        case "thoughts":
            return good._replace(thought=f"{MARK} The word has to be explained. Let me see.")
        case "thoughts_only":
            return Answer("", "MAX_TOKENS", "hm, " * min(most_tokens - 1, 10_000))
        case "bad_json":
            return Answer(f"{MARK} Sure, here it is: {{'definition': {text[:20]!r}, …", "STOP")
        case "large":
            return Answer((text + " ") * (LARGE_CHARS // (len(text) + 1) + 1), "STOP")
        case _:
            return good


def _definition(word: str) -> str:
    gloss = glosses().get(word)
    return gloss.text if gloss else "a word that the emulator's list does not have"


def _sentence(word: str) -> str:
    gloss = glosses().get(word)
    if gloss is None:
        return f"Whoever looks for {word} finds that the emulator has never heard of it."
    meaning = gloss.text.partition(";")[0].removeprefix("to ")
    return _SENTENCES[gloss.part_of_speech].format(word=word, gloss=meaning)


def _list_of_words(prompt: str, most_chars: int) -> str:
    """Return as many words as are asked for, after the one named; the list begins anew at its end.

    Like a model that has run out of words, it then says again what it has said before.
    """
    words = list(glosses())
    number = _NUMBER.search(prompt)
    after: list[str] = _AFTER.findall(prompt)
    start = bisect_right(words, after[-1].lower()) if after else 0
    asked_for = int(number[0]) if number else _LIST_LENGTH
    length = min(asked_for, most_chars)  # a word and its comma are more than one character
    return ", ".join(words[(start + n) % len(words)] for n in range(length))


def _filled(schema: Mapping[str, Any], name: str, word: str) -> Any:
    """Return a value as a JSON schema asks for; ``name`` is that of the property it is for."""
    if schema.get("enum"):
        return schema["enum"][0]
    for option in schema.get("anyOf", ()):
        return _filled(option, name, word)
    match _type_of(schema):
        case "object":
            properties = schema.get("properties", {})
            return {key: _filled(inner, key, word) for key, inner in properties.items()}
        case "array":
            return [_filled(schema.get("items", {}), name, word)]
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _string(name.lower(), word)


def _type_of(schema: Mapping[str, Any]) -> str:
    """Return the type that a schema names: Vertex's own have STRING for string."""
    named = schema.get("type") or ("object" if "properties" in schema else "string")
    return str(named if isinstance(named, str) else named[0]).lower()


def _string(name: str, word: str) -> str:
    if name == "word":
        return word
    if any(part in name for part in ("definition", "meaning", "gloss")):
        return f"{MARK} {_definition(word)}"
    if any(part in name for part in ("mnemonic", "sentence", "example")):
        return f"{MARK} {_sentence(word)}"
    gloss = glosses().get(word)
    if "part" in name and gloss:
        return gloss.part_of_speech
    return f"{MARK} {name} of {word}"


JSON_BY_DEFAULT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"definition": {"type": "string"}, "mnemonic": {"type": "string"}},
}
"""What JSON is made of when nobody says what it is to be made of."""
